-- Whether a route of a bucket matches: path by whole segments, then headers, query and method.
local sub, byte, find = string.sub, string.byte, string.find

local _M = {}

local conditions = {}

function conditions.method(wanted)
    return ngx.req.get_method() == wanted.value
end

function conditions.header(wanted)
    local value = ngx.req.get_headers(0)[wanted.name]
    if type(value) == "table" then
        value = table.concat(value, ", ")
    end
    return value ~= nil and (wanted.value == nil or value == wanted.value)
end

function conditions.query(wanted)
    local value = ngx.req.get_uri_args(0)[wanted.name]
    if type(value) == "table" then
        value = value[1]
    end
    if value == true then
        value = ""
    end
    return value ~= nil and (wanted.value == nil or value == wanted.value)
end

local function all_hold(matches)
    for i = 1, #matches do
        local wanted = matches[i]
        if not conditions[wanted.kind](wanted) then
            return false
        end
    end
    return true
end

-- The length of the part of `path` that the route's path matches, and the port in it; nil when it does not match.
local function path_matches(route, path)
    local wanted = route.path
    local n = #wanted
    if route.exact then
        return path == wanted and n or nil
    end
    if n > 0 and sub(path, 1, n) ~= wanted then
        return nil
    end
    local after = byte(path, n + 1)
    if after ~= nil and after ~= 47 then
        return nil
    end
    if not route.port_in_path then
        return n
    end
    local _, last, port = find(path, "^/([1-9]%d?%d?%d?%d?)", n + 1)
    if not port or tonumber(port) > 65535 then
        return nil
    end
    after = byte(path, last + 1)
    if after ~= nil and after ~= 47 then
        return nil
    end
    return last, port
end

-- The same of a bucket's only route, which has no conditions.
function _M.only(route, path)
    local matched, port = path_matches(route, path)
    if matched then
        return route, port, matched
    end
end

-- The first route of the bucket that matches, with the port in the path and the length that matched.
function _M.first(bucket, path)
    if not bucket then
        return nil
    end
    local routes = bucket.routes
    for i = 1, #routes do
        local route = routes[i]
        local matched, port = path_matches(route, path)
        if matched and (not route.matches or all_hold(route.matches)) then
            return route, port, matched
        end
    end
end

return _M
