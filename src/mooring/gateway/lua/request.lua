-- What happens to a request, in order: judged, routed, let in, then answered or sent on.
local access = require("access")
local api = require("api")
local answers = require("answers")
local balance = require("balance")
local body = require("body")
local filters = require("filters")
local guard = require("guard")
local handover = require("handover")
local mirror = require("mirror")
local ports = require("ports")
local raw = require("raw")
local routes = require("routes")
local settings = require("settings")
local tunnel = require("tunnel")
local usual = require("usual")
local byte, sub = string.byte, string.sub

local _M = {}

local SPACE = 32
local IDEMPOTENT = { GET = true, HEAD = true, OPTIONS = true, PUT = true, DELETE = true, TRACE = true }

local function reserved(path)
    return byte(path, 2) == 46 and (path == "/.mooring" or sub(path, 1, 10) == "/.mooring/")
end

-- Path, host and authority, or nil when the request's target or its host can be read in two ways.
local function judged()
    local var = ngx.var
    local host = var.host
    local path = guard.path(var.request_uri)
    local authority = path and guard.authority(var.http_host, host)
    if authority then
        return path, host, authority
    end
end

local function routed(listener, path, host, authority)
    local state = routes.find(listener, host, path)
    if state then
        state.path, state.host, state.authority = path, host, authority
        state.query = guard.query(ngx.var.request_uri)
        ngx.ctx = state
    end
    return state
end

-- Makes `state.backend` an address that can be connected to; false when there is none.
local function located(state)
    local backend = balance.pick(state.route)
    state.backend = backend
    if not backend then
        return false
    end
    if backend.listener_of then
        state.host_of_peer, state.peer_port = ports.lookup(backend.listener_of, state.port)
        return state.host_of_peer ~= nil
    end
    if backend.host and not backend.port then
        state.peer_port = tonumber(state.port)
    end
    return true
end

-- The location that sends the request on, nil when it is the one that the request is in.
local function location_of(state)
    local backend = state.backend
    if backend.files then
        return "@files"
    end
    -- Before the probe's, which verifies: an editor with a certificate of its own would never be ready. The log has a
    -- line for each time that it is asked too early.
    if backend.tls and not backend.tls.verify then
        return "@unverified"
    end
    return state.subject == access.PROBE and "@probed" or nil
end

-- What may be said of the person, for `proxy_set_header`.
local function disclose(state)
    if state.cookie and state.cookie ~= "" then
        ngx.var.mooring_cookie = state.cookie
    end
    if state.authorization then
        ngx.var.mooring_authorization = state.authorization
    end
end

-- The address for `proxy_pass`, its path the raw bytes of the request but for a rewritten prefix. "http://kept" stands
-- there already.
local function aim(state)
    local tls = state.backend.tls
    state.idempotent = IDEMPOTENT[ngx.req.get_method()]
    if tls then
        ngx.var.mooring_name = tls.name
    end
    -- A kept connection may be one that its backend has just closed: a body that is on its way cannot be sent again.
    -- And behind one to a workspace's port may be whoever listened there before.
    local keeps = not tls and state.idempotent and not state.backend.listener_of and body.length() == 0
    if not keeps or state.route.rewrite then
        local upstream = keeps and "http://kept" or tls and "https://fresh" or "http://fresh"
        ngx.var.mooring_pass = upstream .. filters.target(state)
    end
end

-- Counts the request with its backend until it is over.
local function count(state)
    -- A folder has no connections; and what nginx's own filters refuse (If-Match) comes to its end without its state.
    if state.route.balancing and not state.backend.files then
        balance.opened(state.backend)
        state.counted = true
        handover.keep(state)
    end
end

local function forward(state)
    if not located(state) then
        return answers.unavailable()
    end
    filters.request(state)
    if state.websocket and not state.backend.files then
        count(state)
        return tunnel.serve(state)
    end
    if state.route.mirror then
        mirror.request(state)
    end
    count(state)
    local location = location_of(state)
    if location then
        if not state.counted then
            handover.keep(state)
        end
        return ngx.exec(location)
    end
    disclose(state)
    aim(state)
end

local function passes_to_starting(state)
    return state.subject == access.PROBE and state.route.backends ~= nil
end

local function answered_here(state)
    local route = state.route
    if route.redirect then
        filters.redirect(state)
        return true
    end
    if route.state == "stopped" or route.state == "starting" and not passes_to_starting(state) then
        answers[route.state]()
        return true
    end
end

-- Whether nginx may pass the request on as it is, said in the phase that costs least, where nothing can be waited for
-- nor answered: whatever is unusual is for `handle`. What a usual request looks like stands in server.conf, which gives
-- "host cookies" of one. `prefix` is what the keys of the listener begin with.
function _M.is_plain(prefix, is_https)
    local host, length = raw.argument()
    local till = host + length
    local space = raw.find(host, till, SPACE)
    local host_length = space - host
    if raw.equal(host, host_length, settings.console) or not routes.has_single(prefix, host, host_length) then
        return false
    end
    local is_in, cookies = access.lets_in(host, host_length, is_https, space + 1, till - space - 1)
    if not is_in then
        return false
    end
    if cookies ~= "" then
        ngx.var.mooring_cookie = cookies
    end
    ngx.ctx = usual.state()
    return true
end

function _M.handle(listener)
    local path, host, authority = judged()
    if not path then
        return answers.bad_request()
    end
    -- A name that somebody else points to this address has no way in.
    if host == settings.console or reserved(path) and routes.knows(listener, host) then
        return api.pass()
    end
    local state = routed(listener, path, host, authority)
    if not state then
        return answers.unknown()
    end
    state.websocket = tunnel.wanted()
    if state.route.cors and filters.cors(state) then
        return
    end
    local refusal = access.refusal(state)
    if refusal then
        return answers[refusal](state)
    end
    if not answered_here(state) then
        return forward(state)
    end
end

-- The state of a request whose `ngx.ctx` nginx has cleared, or nil.
function _M.identify(listener)
    local path, host, authority = judged()
    local state = path and routed(listener, path, host, authority)
    if state then
        -- For who asks, by which a probe is known; it was let in.
        access.refusal(state)
    end
    return state
end

-- The same request in the location that sends it on: everything but its address is settled.
function _M.resume()
    local state = handover.kept()
    if not state then
        return ngx.exit(502)
    end
    -- That of a counted one is wanted once more, at its end.
    if not state.counted then
        handover.over(state)
    end
    ngx.ctx = state
    if state.backend.files then
        filters.file(state)
    else
        disclose(state)
        aim(state)
    end
end

return _M
