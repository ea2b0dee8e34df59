-- What a route changes on the way to the backend, and what it answers instead of one.
local files = require("files")
local sub = string.sub

local _M = {}

-- The path and query that the backend is asked for: the raw bytes of the request unless the route rewrites its prefix.
function _M.target(state)
    local rewrite = state.route.rewrite
    if not rewrite then
        return state.path .. state.query
    end
    local path = rewrite .. sub(state.path, state.matched + 1)
    if path == "" or sub(path, 1, 1) ~= "/" then
        path = "/" .. path
    end
    return path .. state.query
end

-- Never changed by a route: what the gateway itself decides, of a request and of an answer.
_M.KEPT = { host = true, connection = true, upgrade = true, ["content-length"] = true, ["transfer-encoding"] = true }

function _M.request(state)
    local KEPT, change = _M.KEPT, state.route.request_headers
    if not change then
        return
    end
    for _, name in ipairs(change.remove or {}) do
        if not KEPT[name] then
            ngx.req.clear_header(name)
        end
    end
    for name, value in pairs(change.set or {}) do
        if not KEPT[name] then
            ngx.req.set_header(name, value)
        end
    end
    for name, value in pairs(change.add or {}) do
        if not KEPT[name] then
            local before = ngx.req.get_headers(0)[name]
            local values = type(before) == "table" and before or { before }
            values[#values + 1] = value
            ngx.req.set_header(name, values)
        end
    end
    _M.credentials(state, change)
end

-- Cookie and Authorization travel by variable, so that Mooring's own stay behind.
function _M.credentials(state, change)
    if not change then
        return
    end
    for _, name in ipairs({ "cookie", "authorization" }) do
        for _, removed in ipairs(change.remove or {}) do
            if removed == name then
                state[name] = nil
            end
        end
        state[name] = change.set and change.set[name] or state[name]
        local added, before = change.add and change.add[name], state[name]
        if added then
            -- Cookies are one field; of the other there can be but one.
            local joined = name == "cookie" and before and before ~= ""
            state[name] = joined and before .. "; " .. added or added
        end
    end
end

-- Adds a field to the answer, beside those of its name.
function _M.add_header(name, value)
    local before = ngx.header[name]
    local values = type(before) == "table" and before or { before }
    values[#values + 1] = value
    ngx.header[name] = values
end

local function allowed_origin(cors, origin)
    if cors.origins[origin] then
        return origin
    end
    if cors.origins["*"] and not cors.credentials then
        return "*"
    end
end

-- Says which pages of other origins may read the answer.
function _M.cors_headers(cors)
    local origin = ngx.var.http_origin
    local allowed = origin and allowed_origin(cors, origin)
    if allowed ~= "*" then
        -- Kept by a browser without it, an answer for one origin, or none, would be another one's too.
        _M.add_header("Vary", "Origin")
    end
    if not allowed then
        return
    end
    ngx.header["Access-Control-Allow-Origin"] = allowed
    if cors.credentials then
        ngx.header["Access-Control-Allow-Credentials"] = "true"
    end
end

-- Answers a preflight request; gives true when it did. It carries no credentials, so nobody is let in by it.
function _M.cors(state)
    if ngx.req.get_method() ~= "OPTIONS" or not ngx.var.http_access_control_request_method then
        return false
    end
    local cors = state.route.cors
    if ngx.var.http_origin and allowed_origin(cors, ngx.var.http_origin) then
        ngx.header["Access-Control-Allow-Methods"] = table.concat(cors.methods, ", ")
        ngx.header["Access-Control-Allow-Headers"] = table.concat(cors.headers, ", ")
        ngx.header["Access-Control-Max-Age"] = tostring(cors.max_age_s)
    end
    ngx.exit(ngx.HTTP_NO_CONTENT)
    return true
end

local DEFAULT_PORT = { http = 80, https = 443 }

function _M.redirect(state)
    local redirect = state.route.redirect
    local scheme = redirect.scheme or ngx.var.scheme
    local port = redirect.port
    if not port and not redirect.scheme and not redirect.host then
        port = tonumber(string.match(state.authority, ":(%d+)$"))
    end
    local suffix = port and port ~= DEFAULT_PORT[scheme] and ":" .. port or ""
    local place = (redirect.host or state.host) .. suffix .. (redirect.path or state.path)
    return ngx.redirect(scheme .. "://" .. place .. state.query, redirect.status)
end

-- A folder's page below a path without a slash behind it: relative links in it would lead beside the folder.
local function lacks_slash(state, path)
    local method = ngx.req.get_method()
    return sub(state.path, -1) ~= "/" and (method == "GET" or method == "HEAD")
        -- A route of just this path has none for the one with the slash.
        and not state.route.exact and files.is_folder(state.backend.files, path)
end

-- The folder and the file in it: the decoded path, from which `guard` has kept every encoded dot and slash.
function _M.file(state)
    -- In a path a plus is one; only in a form's fields it is a space.
    local path = ngx.unescape_uri((string.gsub(string.match(_M.target(state), "^[^?]*"), "%+", "%%2B")))
    if lacks_slash(state, path) then
        -- With the host, since a path of two slashes would name another one.
        return ngx.redirect(ngx.var.scheme .. "://" .. state.authority .. state.path .. "/" .. state.query, 302)
    end
    if ngx.req.get_method() == "HEAD" then
        -- Ranges are GET's alone (RFC 9110, 14.2); nginx would tell the length of one.
        ngx.req.clear_header("Range")
    end
    ngx.var.mooring_root = state.backend.files
    -- `/+$` would be tried from each of thousands of slashes that are not the last ones.
    ngx.var.mooring_file = string.match(path, "^.*[^/]") or ""
end

return _M
