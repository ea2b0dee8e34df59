-- The headers of a request as a backend gets them, for what Lua itself sends. `conf/` says the same for `proxy_pass`.
local lower = string.lower

local _M = {}

-- Hop-by-hop, decided by the gateway, or never believed from a client.
_M.DROPPED = {
    host = true, connection = true, upgrade = true, cookie = true, authorization = true, forwarded = true, te = true,
    trailer = true, ["keep-alive"] = true, ["content-length"] = true, ["transfer-encoding"] = true, expect = true,
    ["x-real-ip"] = true, ["x-forwarded-for"] = true, ["x-forwarded-proto"] = true, ["x-forwarded-host"] = true,
    ["x-forwarded-port"] = true, ["x-forwarded-prefix"] = true, ["x-forwarded-server"] = true,
    ["proxy-connection"] = true, ["proxy-authorization"] = true,
}

-- Adds them to `lines`, but for Host, Connection and the length of a body.
function _M.add(state, lines)
    local function add(name, value)
        for _, one in ipairs(type(value) == "table" and value or { value }) do
            lines[#lines + 1] = name .. ": " .. tostring(one)
        end
    end
    for name, value in pairs(ngx.req.get_headers(0, true)) do
        local plain = lower(name)
        -- Compressed frames could not be told apart, and a person's typing would not count.
        local unreadable = plain == "sec-websocket-extensions" and state.route.workspace
        if not _M.DROPPED[plain] and not unreadable then
            add(name, value)
        end
    end
    if state.cookie and state.cookie ~= "" then
        add("Cookie", state.cookie)
    end
    if state.authorization then
        add("Authorization", state.authorization)
    end
    add("X-Forwarded-For", ngx.var.remote_addr)
    add("X-Forwarded-Proto", ngx.var.scheme)
    add("X-Forwarded-Host", state.authority)
end

return _M
