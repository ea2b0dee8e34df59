-- A WebSocket through the gateway: the handshake goes to the backend, then bytes are carried both ways. nginx's own
-- `proxy_pass` can neither count a tunnel nor cut it.
local access = require("access")
local activity = require("activity")
local frames = require("frames")
local handshake = require("handshake")
local input = require("input")
local metrics = require("metrics")
local tunnels = require("tunnels")

local _M = {}

local CHUNK = 16384
local DAY_MS = 86400 * 1000
local SEND_MS = 60 * 1000

-- Whether the request asks for a WebSocket.
function _M.wanted()
    local upgrade = ngx.var.http_upgrade
    return upgrade ~= nil and string.lower(upgrade) == "websocket" and ngx.req.http_version() == 1.1
        and ngx.req.get_method() == "GET"
end

local function carry(from, to, passed)
    while true do
        local data = from:receiveany(CHUNK)
        if not data then
            return
        end
        passed(data)
        if not to:send(data) then
            return
        end
    end
end

-- Counts the bytes and sees the frames that come from the client.
local function from_client(state, tally)
    local workspace = state.route.workspace
    if not workspace or state.subject == access.PROBE then
        return function(data)
            tally.bytes_in = tally.bytes_in + #data
        end
    end
    local caused_by_person = input.rule(state.query)
    local reader = frames.new(function(opcode, payload)
        if opcode <= 2 and caused_by_person(payload) then
            activity.touch(workspace)
        end
    end)
    return function(data)
        tally.bytes_in = tally.bytes_in + #data
        reader:feed(data)
    end
end

-- Until either side has closed, what it said before having been passed on, or the tunnel must end. WebSockets say
-- goodbye in frames: a side that has closed its connection reads no more.
local function carry_both(state, client, backend, tally)
    local ended = tunnels.enter(state)
    local to_backend = ngx.thread.spawn(carry, client, backend, from_client(state, tally))
    local to_client = ngx.thread.spawn(carry, backend, client, function(data)
        tally.bytes_out = tally.bytes_out + #data
    end)
    local watch = ngx.thread.spawn(function()
        repeat
            local posted = ended:wait(3600)
        until posted
    end)
    ngx.thread.wait(to_backend, to_client, watch)
    tunnels.leave(state)
end

-- Answers the request: 101 and the tunnel, or what the backend said instead.
function _M.serve(state)
    local backend, answer = handshake.ask(state)
    if not backend then
        return require("answers").unavailable(state)
    end
    if answer.status ~= 101 then
        return handshake.relay(backend, answer)
    end
    local client, err = ngx.req.socket(true)
    if not client then
        ngx.log(ngx.ERR, "tunnel: ", err)
        backend:close()
        return ngx.exit(500)
    end
    client:settimeouts(SEND_MS, SEND_MS, DAY_MS)
    backend:settimeouts(SEND_MS, SEND_MS, DAY_MS)
    local tally = { bytes_in = 0, bytes_out = 0 }
    state.tally = tally
    if client:send(handshake.switching(answer)) then
        metrics.opened(state)
        carry_both(state, client, backend, tally)
    end
    backend:close()
    return ngx.exit(444)
end

return _M
