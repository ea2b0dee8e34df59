-- What the agent decided at nginx's start: set once in the master, read by every module.
local _M = { console = "", api_socket = "", gateway_token = "", pages = "" }

function _M.init(values)
    for name, value in pairs(values) do
        _M[name] = value
    end
end

return _M
