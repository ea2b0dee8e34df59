-- Counts a request in the worker's own memory; a timer adds what came together to the shared dictionary, where it
-- survives the worker. One entry a worker and route, written by that worker alone.
local access = require("access")
local activity = require("activity")
local balance = require("balance")
local cjson = require("cjson.safe")
local tunnels = require("tunnels")

local dict = ngx.shared.metrics

local _M = {}

local FLUSH_S = 1
-- Most routes that have counters of their own; what comes then is counted together.
local MOST_LABELS = 1000
local OTHER = "_other"

-- Places in an entry: answers 1xx to 5xx, bytes to the client, bytes from it, seconds, then the histogram.
local BYTES_OUT, BYTES_IN, SECONDS, FIRST_BUCKET = 6, 7, 8, 9
local BOUNDS = { 0.005, 0.025, 0.1, 0.5, 2.5, 10, math.huge }
local PLACES = FIRST_BUCKET + #BOUNDS - 1

local pending, refused = {}, {}

local function entry(id)
    local found = pending[id]
    if not found then
        found = {}
        for i = 1, PLACES do
            found[i] = 0
        end
        pending[id] = found
    end
    return found
end

local function add(found, place, value)
    found[place] = found[place] + value
end

function _M.refused(reason)
    refused[reason] = (refused[reason] or 0) + 1
end

local function count(state)
    local found = entry(state.route.id)
    local status = ngx.status
    local class = status >= 100 and status < 600 and math.floor(status / 100) or 5
    if state.tally then
        add(found, BYTES_OUT, state.tally.bytes_out)
        add(found, BYTES_IN, state.tally.bytes_in)
        return
    end
    local var = ngx.var
    local seconds = tonumber(var.request_time)
    add(found, class, 1)
    add(found, BYTES_OUT, tonumber(var.bytes_sent))
    add(found, BYTES_IN, tonumber(var.request_length))
    add(found, SECONDS, seconds)
    local bucket = 1
    while seconds > BOUNDS[bucket] do
        bucket = bucket + 1
    end
    add(found, FIRST_BUCKET + bucket - 1, 1)
end

function _M.opened(state)
    add(entry(state.route.id), 1, 1)
end

function _M.log()
    local state = ngx.ctx.state
    if not state then
        return
    end
    if state.counted then
        balance.closed(state.backend)
    end
    if state.subject == access.PROBE then
        return
    end
    count(state)
    local workspace = state.route.workspace
    if workspace and state.backend and not state.tally and ngx.status < 400 and activity.is_navigation() then
        activity.touch(workspace)
    end
end

local function labelled(id)
    local key = ngx.worker.id() .. " " .. id
    local before = dict:get(key)
    if before or id == OTHER then
        return key, before
    end
    if dict:get("gone " .. id) then
        return nil
    end
    if dict:incr("labels", 1, 0) > MOST_LABELS then
        dict:incr("labels", -1)
        return labelled(OTHER)
    end
    return key
end

local function flush_entry(id, found)
    local key, before = labelled(id)
    if not key then
        return
    end
    local sums = before and cjson.decode(before)
    for i = 1, PLACES do
        found[i] = found[i] + (sums and sums[i] or 0)
    end
    dict:safe_set(key, cjson.encode(found))
end

function _M.flush()
    local routes, reasons = pending, refused
    pending, refused = {}, {}
    for id, found in pairs(routes) do
        flush_entry(id, found)
    end
    for reason, times in pairs(reasons) do
        dict:incr("refused " .. reason, times, 0)
    end
    local by_route, by_workspace = tunnels.counts()
    local open = { pid = ngx.worker.pid(), routes = by_route, workspaces = by_workspace }
    dict:set("open " .. ngx.worker.id(), cjson.encode(open))
end

-- A route that is gone: its counters go, and requests still open must not bring them back.
function _M.forget(id)
    dict:set("gone " .. id, true, 120)
    for worker = 0, ngx.worker.count() - 1 do
        local key = worker .. " " .. id
        if dict:get(key) then
            dict:delete(key)
            dict:incr("labels", -1, 0)
        end
    end
end

function _M.start()
    _M.flush()
    assert(ngx.timer.every(FLUSH_S, _M.flush))
end

return _M
