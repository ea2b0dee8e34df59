-- What goes to the server itself: everything on the console's host, and `/.mooring/` on every host. It checks access.
local _M = {}

function _M.pass()
    return ngx.exec("@api")
end

function _M.upgrade()
    local upgrade = ngx.var.http_upgrade
    if upgrade and string.lower(upgrade) == "websocket" then
        ngx.var.mooring_upgrade = "websocket"
        ngx.var.mooring_connection = "upgrade"
    end
end

return _M
