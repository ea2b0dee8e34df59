-- Connections of Lua's own to a backend; what `proxy_pass` carries is nginx's business.
local _M = {}

-- A connected socket, TLS done; nil and why. `host` and `port` are for a backend whose own are not known beforehand.
function _M.connect(backend, timeouts, host, port)
    local socket = ngx.socket.tcp()
    socket:settimeouts(timeouts.connect_ms, timeouts.send_ms, timeouts.read_ms)
    local ok, err
    if backend.unix then
        ok, err = socket:connect(backend.unix)
    else
        ok, err = socket:connect(host or backend.host, port or backend.port)
    end
    if ok and backend.tls then
        ok, err = socket:sslhandshake(false, backend.tls.name, backend.tls.verify)
    end
    if not ok then
        socket:close()
        return nil, err
    end
    return socket
end

return _M
