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
    -- By default a worker's memory may double before it is looked at; this costs a little more time for a third less.
    collectgarbage("setpause", 150)
    require("metrics").start()
    require("tunnels").start()
end

return _M
