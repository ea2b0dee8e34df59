-- What a backend's answer must not do: set Mooring's cookies, or let a service worker rule more than its own route.
local balance = require("balance")
local filters = require("filters")
local find = ngx.re.find

local _M = {}

-- Also `=mooring=…`: a browser sends a cookie without a name back as its value alone.
local OURS = [[^[\s=]*(?:__Host-mooring|mooring)\s*(?:=|;|$)]]

local function drop_our_cookies(cookies)
    local kept = {}
    for _, cookie in ipairs(type(cookies) == "table" and cookies or { cookies }) do
        if not find(cookie, OURS, "joi") then
            kept[#kept + 1] = cookie
        end
    end
    return kept
end

local function narrow_service_worker(state)
    local path = string.sub(state.path or "", 1, state.matched or 0)
    ngx.header["Service-Worker-Allowed"] = path .. "/"
end

local function change(headers)
    local KEPT = filters.KEPT
    for _, name in ipairs(headers.remove or {}) do
        if not KEPT[name] then
            ngx.header[name] = nil
        end
    end
    for name, value in pairs(headers.set or {}) do
        if not KEPT[name] then
            ngx.header[name] = value
        end
    end
    for name, value in pairs(headers.add or {}) do
        if not KEPT[name] then
            filters.add_header(name, value)
        end
    end
end

local function remember_backend(state)
    local name, token = balance.cookie(state.route), balance.token(state.route, state.backend)
    if ngx.var["cookie_" .. name] ~= token then
        local secure = ngx.var.scheme == "https" and "; Secure" or ""
        filters.add_header("Set-Cookie", name .. "=" .. token .. "; Path=/; HttpOnly; SameSite=Lax" .. secure)
    end
end

function _M.headers()
    local state = ngx.ctx
    if not state.route then
        return
    end
    -- nginx would carry what was switched to (101) by itself, where nothing counts or cuts it. An interim answer it
    -- takes for the whole one, and what is no HTTP (0) for HTTP/0.9: the rest would reach the client as the backend
    -- wrote it, headers that nobody has read included.
    if ngx.status < 200 then
        return ngx.exit(502)
    end
    local headers = ngx.header
    local cookies = headers["Set-Cookie"]
    if cookies then
        headers["Set-Cookie"] = drop_our_cookies(cookies)
    end
    if headers["Service-Worker-Allowed"] then
        narrow_service_worker(state)
    end
    if state.usual then
        return
    end
    local route = state.route
    -- Browsers say where a request comes from only to secure origins: elsewhere they must be told who may frame. By
    -- this header they ask for a page.
    if route.workspace and not state.port and (ngx.var.http_upgrade_insecure_requests or "") ~= "" then
        ngx.header["X-Frame-Options"] = "SAMEORIGIN"
        -- A page that opened the editor in a window could lead that window elsewhere, under the person's eyes.
        ngx.header["Cross-Origin-Opener-Policy"] = "same-origin-allow-popups"
    end
    if route.response_headers then
        change(route.response_headers)
    end
    if route.cors then
        filters.cors_headers(route.cors)
    end
    if route.affinity == "cookie" and state.backend then
        remember_backend(state)
    end
end

return _M
