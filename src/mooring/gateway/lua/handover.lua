-- The states of requests that nginx takes `ngx.ctx` from, on the way to a named location or to the page for a failure:
-- each waits here under a number, which a variable keeps.
local balance = require("balance")

local _M = {}

local handed, last = {}, 0

function _M.keep(state)
    last = last + 1
    handed[last] = state
    ngx.var.mooring_handover = last
end

-- The state of this request, nil when none is kept.
function _M.kept()
    local number = tonumber(ngx.var.mooring_handover)
    return number and handed[number]
end

-- The request has what it needs of its state: else a backend that failed would be taken for a busy one for ever.
function _M.over(state)
    handed[tonumber(ngx.var.mooring_handover)] = nil
    if state.counted then
        balance.closed(state.backend)
    end
end

return _M
