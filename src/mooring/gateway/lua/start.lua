-- Runs once in the master (load) and once in each worker (worker).
local _M = {}

-- What the phases of a request begin with. Loaded before the fork, the code is shared memory of all workers.
function _M.load()
    require("resty.core")
    -- The way of a request is one trace; with the default of 500 constants the compiler gives it up as too long.
    require("jit.opt").start("maxirconst=4000", "maxsnap=2000")
    local request = require("request")
    require("admin")
    require("failed")
    require("api")
    require("certificate")
    require("modules")
    require("pages").load()
    return {
        is_plain = request.is_plain,
        handle = request.handle,
        pick = require("balancer").pick,
        headers = require("response").headers,
        log = require("metrics").log,
        handle_module = require("modules").handle,
        no_modules = require("modules").unavailable,
    }
end

function _M.worker()
    require("metrics").start()
    require("tunnels").start()
    require("module_hits").start()
end

return _M
