-- Runs once in the master (load) and once in each worker (worker).
local _M = {}

-- Loaded before the fork, the code is shared memory of all workers.
function _M.load()
    require("resty.core")
    require("request")
    require("response")
    require("balancer")
    require("admin")
    require("failed")
    require("api")
    require("certificate")
    require("pages").load()
end

function _M.worker()
    require("metrics").start()
    require("tunnels").start()
end

return _M
