-- A WebSocket through the gateway: the handshake goes to the backend, then bytes are carried both ways. nginx's own
-- `proxy_pass` can neither count a tunnel nor cut it.
local access = require("access")
local activity = require("activity")
local balance = require("balance")
local frames = require("frames")
local handshake = require("handshake")
local input = require("input")
local metrics = require("metrics")
local tunnels = require("tunnels")

local _M = {}

local CHUNK = 16384
local DAY_MS = 86400 * 1000
local SEND_MS = 60 * 1000
local GOODBYE_S = 5

-- Whether the request asks for a WebSocket.
function _M.wanted()
    local upgrade = ngx.var.http_upgrade
    return upgrade ~= nil and string.lower(upgrade) == "websocket" and ngx.req.http_version() == 1.1
        and ngx.req.get_method() == "GET"
end

-- Until `from` has closed, or `to` takes no more: gives whether it is that.
local function carry(from, to, passed)
    while true do
        local data, err = from:receiveany(CHUNK)
        if data then
            passed(data)
            local sent, why = to:send(data)
            if not sent then
                -- What a side said before it went is being carried the other way: why it went, as a rule.
                ngx.sleep(why == "timeout" and 0 or GOODBYE_S)
                return true
            end
        -- A side that only listens says nothing for days.
        elseif err ~= "timeout" then
            return false
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

-- Until either side has closed, what it said before having been passed on, or the tunnel must end: gives whether it
-- must. WebSockets say goodbye in frames: a side that has closed its connection reads no more.
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
        return true
    end)
    local _, must_end = ngx.thread.wait(to_backend, to_client, watch)
    tunnels.leave(state)
    return must_end
end

local function has_address(backend)
    return backend.unix or backend.port
end

-- What `handshake.ask` gives of the first backend that answers: to open a socket may be tried again.
local function ask(state)
    for _ = 1, balance.MOST_TRIES do
        local backend, answer, may_repeat = handshake.ask(state)
        if not may_repeat or not balance.take_over(state, has_address) then
            return backend, answer
        end
    end
end

-- Answers the request: 101 and the tunnel, or what the backend said instead.
function _M.serve(state)
    local backend, answer = ask(state)
    if not backend then
        return require("answers").unavailable()
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
    local must_end = not client:send(handshake.switching(answer))
    if not must_end then
        metrics.opened(state)
        must_end = carry_both(state, client, backend, tally)
    end
    backend:close()
    -- 444 resets the connection, which throws away what the client has not read yet.
    return ngx.exit(must_end and 444 or ngx.HTTP_OK)
end

return _M
