-- What later phases need to know of a usual request (server.conf). Its tables are used again by a later one: making and
-- collecting them would cost as much as all that is decided.
local labels = require("labels")
local single = require("single")

local _M = {}

-- More are not kept after a rush.
local MOST_SPARE = 256

local spare, count = {}, 0

local function new()
    local route = { single = true }
    return { usual = true, idempotent = true, route = route, backend = route }
end

-- The state of a request for the route whose lines were read last.
function _M.state()
    local state
    if count > 0 then
        state, count = spare[count], count - 1
        state.tries, state.tried = nil, nil
    else
        state = new()
    end
    local route = state.route
    single.address(route)
    local id = single.lines.id
    route.id = not labels.lacks(id.at, id.length) and single.text(id) or nil
    return state
end

-- Nothing holds the state any more.
function _M.over(state)
    if count < MOST_SPARE then
        count = count + 1
        spare[count] = state
    end
end

return _M
