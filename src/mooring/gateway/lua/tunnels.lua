-- The open tunnels of this worker, and their end: a tunnel lives as long as its route serves and its session may enter.
local access = require("access")
local routes = require("routes")
local semaphore = require("ngx.semaphore")

local grants = ngx.shared.grants
local table_of_routes = ngx.shared.routes

local _M = {}

local CHECK_S = 0.2
local open = {}

function _M.leave(state)
    open[state] = nil
end

local function may_stay(state)
    local route = routes.again(state.bucket, state.route.id)
    if not route or route.state == "stopped" or route.state == "starting" and state.subject ~= access.PROBE then
        return false
    end
    return access.still(state, route)
end

-- Keeps the tunnel's state; gives a semaphore that is posted when it must end.
function _M.enter(state)
    local ended = assert(semaphore.new())
    open[state] = ended
    -- What changed while its backend was asked has been looked at without it.
    if not may_stay(state) then
        ended:post()
    end
    return ended
end

local seen_changes, seen_generation

local function check(premature)
    if premature then
        return
    end
    local changes, generation = table_of_routes:get("@changes"), grants:get("generation")
    if changes == seen_changes and generation == seen_generation then
        return
    end
    seen_changes, seen_generation = changes, generation
    for state, ended in pairs(open) do
        if not may_stay(state) then
            ended:post()
        end
    end
end

function _M.start()
    assert(ngx.timer.every(CHECK_S, check))
end

-- Iterates over the states of the open tunnels.
function _M.each()
    return pairs(open)
end

-- Open tunnels by route and by workspace.
function _M.counts()
    local by_route, by_workspace = {}, {}
    for state in pairs(open) do
        local id, workspace = state.route.id, state.route.workspace
        by_route[id] = (by_route[id] or 0) + 1
        if workspace and state.subject ~= access.PROBE then
            by_workspace[workspace] = (by_workspace[workspace] or 0) + 1
        end
    end
    return by_route, by_workspace
end

return _M
