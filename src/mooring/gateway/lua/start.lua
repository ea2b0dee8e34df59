-- Runs once in the master (load) and once in each worker (worker).
local _M = {}

-- Loaded before the fork, the code is shared memory of all workers.
function _M.load()
    require("resty.core")
    -- The way of a request is one trace; with the default of 500 constants the compiler gives it up as too long.
    require("jit.opt").start("maxirconst=4000", "maxsnap=2000")
    require("request")
    require("response")
    require("balancer")
    require("admin")
    require("failed")
    require("api")
    require("certificate")
    require("modules")
    require("pages").load()
end

function _M.worker()
    require("metrics").start()
    require("tunnels").start()
    require("module_hits").start()
end

return _M
