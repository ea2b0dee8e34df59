-- nginx asks here for a peer: the backend that the request was routed to, then, after a failure, another one.
local balance = require("balance")
local peers = require("ngx.balancer")

local _M = {}

-- nginx's NGX_BUSY: no peer is left, which ends the request with 502. A status would end it with 500.
local NO_PEER = -3

local function connect_to(state)
    local backend = state.backend
    local ok, err
    if backend.unix then
        ok, err = peers.set_current_peer(backend.unix)
    else
        ok, err = peers.set_current_peer(state.host_of_peer or backend.host, state.peer_port or backend.port)
    end
    if not ok then
        ngx.log(ngx.ERR, "peer of ", state.route.id, ": ", err)
        return ngx.exit(NO_PEER)
    end
    local route = state.route
    if route.connect_s then
        peers.set_timeouts(route.connect_s, route.read_s, route.read_s)
    end
end

-- Only a request that reached no backend may be sent again, and of the others those that RFC 9110 (9.2.2) calls
-- idempotent, when the connection broke: one that took too long may still be at work.
local function may_retry(state)
    -- A list with an empty end for the try that is being made now: "0.001, - : ".
    local connected = string.match(ngx.var.upstream_connect_time or "-", "([^ ,:]+)[ ,:]*$")
    if connected == "-" then
        return true
    end
    local _, status = peers.get_last_failure()
    return status ~= 504 and state.idempotent
end

-- nginx has already chosen between http and https, the name to expect, and whether to verify it.
local function agree(one, other)
    if one and other then
        return one.name == other.name and one.verify == other.verify
    end
    return one == other
end

local function can_take_over(found, before)
    return (found.unix or found.port) and agree(found.tls, before.tls)
end

function _M.pick()
    local state = ngx.ctx
    if not state.route then
        return ngx.exit(NO_PEER)
    end
    if not state.tries then
        state.tries = 1
        local backends = state.route.backends and #state.route.backends or 1
        if backends > 1 then
            peers.set_more_tries(math.min(backends, balance.MOST_TRIES) - 1)
        end
        return connect_to(state)
    end
    if not may_retry(state) then
        return ngx.exit(NO_PEER)
    end
    state.tries = state.tries + 1
    balance.take_over(state, can_take_over)
    connect_to(state)
end

return _M
