-- What the agent decided at nginx's start: set once in the master, read by every module.
local _M = {
    console = "", api_socket = "", gateway_token = "", pages = "",
    -- Of the module proxy; empty where there is none.
    modules_store = "", modules_policy = "", modules_hits = "",
}

function _M.init(values)
    for name, value in pairs(values) do
        _M[name] = value
    end
end

return _M
