-- Copies of a request for a second backend. Whoever made the request neither waits for a copy nor learns what became
-- of it: it goes out by a timer, and is left out where too many are still on their way.
local body = require("body")
local dial = require("dial")
local filters = require("filters")
local forwarded = require("forwarded")
local metrics = require("metrics")

local _M = {}

-- What mirrors that hang may hold in a worker: so many copies with a body of at most so many bytes.
local MOST_OPEN = 64
local LONGEST_BODY = 65536
local TIMEOUTS = { connect_ms = 1000, send_ms = 5000, read_ms = 5000 }
local LONGEST_S = 10
local PIECE = 16384

local open = 0

-- The answer is read, not kept: a backend that could not send it might take the request for one that was given up.
local function drain(socket)
    local deadline = ngx.now() + LONGEST_S
    repeat
        local piece = socket:receiveany(PIECE)
    until not piece or ngx.now() > deadline
end

local function deliver(backend, text)
    local socket = dial.connect(backend, TIMEOUTS)
    if socket then
        if socket:send(text) then
            drain(socket)
        end
        socket:close()
    end
end

local function send(premature, backend, text)
    if not premature then
        local ok, err = pcall(deliver, backend, text)
        if not ok then
            ngx.log(ngx.ERR, "mirror: ", err)
        end
    end
    open = open - 1
end

-- The body, "" for none; nil when there is no telling how long it gets, or it is too long to be kept.
local function kept()
    local length = body.length()
    if not length or length > LONGEST_BODY then
        return nil
    end
    if length == 0 then
        return ""
    end
    ngx.req.read_body()
    local data = ngx.req.get_body_data()
    local path = not data and ngx.req.get_body_file()
    local file = path and io.open(path, "rb")
    if file then
        data = file:read("*a")
        file:close()
    end
    return data
end

local function copy(state, payload)
    local lines = { ngx.req.get_method() .. " " .. filters.target(state) .. " HTTP/1.1", "Host: " .. state.authority,
        "Connection: close" }
    forwarded.add(state, lines)
    if payload ~= "" then
        lines[#lines + 1] = "Content-Length: " .. #payload
    end
    return table.concat(lines, "\r\n") .. "\r\n\r\n" .. payload
end

-- Copies the request of `state`, whose filters have been applied.
function _M.request(state)
    local backend = state.route.mirror
    if math.random(100) > backend.percent then
        return
    end
    local payload = open < MOST_OPEN and kept()
    -- Reading the body may have taken time, in which others took the places.
    if not payload or open >= MOST_OPEN then
        return metrics.refused("mirror")
    end
    open = open + 1
    if not ngx.timer.at(0, send, backend, copy(state, payload)) then
        open = open - 1
        metrics.refused("mirror")
    end
end

return _M
