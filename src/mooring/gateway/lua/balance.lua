-- Picks one backend of a route. Counts are a worker's own: sharing them would cost a lock a request.
local _M = { MOST_TRIES = 3 }

-- Requests under way by address: a backend's own table is another one after each change of its bucket.
local open = {}

local function smooth_round_robin(backends, skip)
    local best, total = nil, 0
    for i = 1, #backends do
        local backend = backends[i]
        if not (skip and skip[backend]) then
            local weight = backend.weight or 1
            total = total + weight
            backend.current = (backend.current or 0) + weight
            if not best or backend.current > best.current then
                best = backend
            end
        end
    end
    if best then
        best.current = best.current - total
    end
    return best
end

local function target(backend)
    return backend.unix or backend.files or (backend.host or backend.listener_of or "") .. ":" .. (backend.port or "")
end

local function least_connections(backends, skip)
    local best, least
    for i = 1, #backends do
        local backend = backends[i]
        if not (skip and skip[backend]) then
            local load = (open[target(backend)] or 0) / (backend.weight or 1)
            if not best or load < least then
                best, least = backend, load
            end
        end
    end
    return best
end

-- Rendezvous hashing: a backend that comes or goes moves only its own share of the clients.
local function hashed(backends, skip, key)
    local best, most
    for i = 1, #backends do
        local backend = backends[i]
        if not (skip and skip[backend]) then
            local score = ngx.crc32_long(key .. " " .. target(backend)) * (backend.weight or 1)
            if not best or score > most then
                best, most = backend, score
            end
        end
    end
    return best
end

-- The name of a route's affinity cookie: two routes of a host must not overwrite each other's.
function _M.cookie(route)
    return string.format("mooring-backend-%08x", ngx.crc32_long(route.id))
end

-- The name of a backend in the affinity cookie: it must not tell the address.
function _M.token(route, backend)
    return string.format("%08x", ngx.crc32_long(route.id .. " " .. target(backend)))
end

local function remembered(route, skip)
    local token = ngx.var["cookie_" .. _M.cookie(route)]
    for _, backend in ipairs(token and route.backends or {}) do
        if not (skip and skip[backend]) and _M.token(route, backend) == token then
            return backend
        end
    end
end

-- A backend of `route` that is not in `skip`, or nil.
function _M.pick(route, skip)
    if route.single then
        return not (skip and skip[route]) and route or nil
    end
    local backends = route.backends
    if not backends then
        return nil
    end
    if #backends == 1 then
        local only = backends[1]
        return not (skip and skip[only]) and only or nil
    end
    if route.affinity == "client_address" then
        return hashed(backends, skip, ngx.var.remote_addr)
    end
    local kept = route.affinity == "cookie" and remembered(route, skip)
    if kept then
        return kept
    end
    if route.balancing == "least_connections" then
        return least_connections(backends, skip)
    end
    return smooth_round_robin(backends, skip)
end

function _M.opened(backend)
    local at = target(backend)
    open[at] = (open[at] or 0) + 1
end

function _M.closed(backend)
    local at = target(backend)
    local left = open[at] - 1
    open[at] = left > 0 and left or nil
end

-- Has another backend take over, one that was not tried and that `fits(found, the one before)`; whether there is one.
function _M.take_over(state, fits)
    local before, tried = state.backend, state.tried or {}
    tried[before] = true
    state.tried = tried
    local found = _M.pick(state.route, tried)
    while found and not fits(found, before) do
        tried[found] = true
        found = _M.pick(state.route, tried)
    end
    if not found then
        return false
    end
    if state.counted then
        _M.closed(before)
        _M.opened(found)
    end
    state.backend = found
    -- The first one's: this one has an address of its own.
    state.host_of_peer, state.peer_port = nil, nil
    return true
end

return _M
