-- What a request says of its body before any of it has come.
local _M = {}

local BODILESS = { GET = true, HEAD = true, OPTIONS = true, DELETE = true }

-- Its length, 0 when there is none; nil when that is not said.
function _M.length()
    local var = ngx.var
    if var.http_transfer_encoding then
        return nil
    end
    local length = var.http_content_length
    if length then
        return tonumber(length)
    end
    -- HTTP/2 says how long a body is only if it wants to (RFC 9113, 8.1.1).
    local untold = var.server_protocol == "HTTP/2.0" and not BODILESS[ngx.req.get_method()]
    return not untold and 0 or nil
end

return _M
