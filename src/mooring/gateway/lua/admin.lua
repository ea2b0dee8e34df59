-- The agent's connection: after one HTTP request head, frames in both directions, each a length (4 bytes, big-endian)
-- and a JSON document. One frame is one request, answered by one frame; only the agent's user can reach the socket.
local apply = require("apply")
local cjson = require("cjson.safe")
local granting = require("granting")
local telemetry = require("telemetry")

local _M = {}

-- A change that takes all of a full table away names each bucket and route of it: a frame that is refused would be sent
-- again for ever.
local MOST = 256 * 1024 * 1024

local operations = {
    begin = apply.begin,
    apply = apply.apply,
    applied = apply.applied,
    grant = granting.change,
    certificate = apply.certificate,
    telemetry = telemetry.read,
}

local function receive(socket)
    local head = socket:receive(4)
    if not head then
        return nil
    end
    local a, b, c, d = string.byte(head, 1, 4)
    local length = ((a * 256 + b) * 256 + c) * 256 + d
    if length > MOST then
        return nil
    end
    return socket:receive(length)
end

local function send(socket, text)
    local n = #text
    local high, low = bit.rshift(n, 16), bit.band(n, 65535)
    local head = string.char(bit.rshift(high, 8), bit.band(high, 255), bit.rshift(low, 8), bit.band(low, 255))
    return socket:send({ head, text })
end

local function answer(text, connection)
    local frame = cjson.decode(text)
    local operation = frame and operations[frame.op]
    if not operation then
        return { error = "unknown operation" }
    end
    local ok, result = pcall(operation, frame, connection)
    if not ok then
        ngx.log(ngx.ERR, "admin ", frame.op, ": ", result)
        return { error = "internal" }
    end
    return result
end

function _M.serve()
    local socket = assert(ngx.req.socket(true))
    local connection = {}
    while true do
        local text = receive(socket)
        if not text or not send(socket, cjson.encode(answer(text, connection))) then
            return
        end
    end
end

return _M
