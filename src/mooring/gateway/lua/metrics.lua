-- Counts a request in the worker's own memory; a timer adds what came together to the shared dictionary, where it
-- survives the worker. One entry a worker and route, written by that worker alone.
local access = require("access")
local activity = require("activity")
local cjson = require("cjson.safe")
local ffi = require("ffi")
local handover = require("handover")
local labels = require("labels")
local raw = require("raw")
local tunnels = require("tunnels")
local usual = require("usual")

local dict = ngx.shared.metrics

local _M = {}

local FLUSH_S = 1
-- Most routes that have counters of their own; what comes then is counted together.
local MOST_LABELS = 1000
local OTHER = "_other"

-- Places in an entry: answers 1xx to 5xx, bytes to the client, bytes from it, seconds, then the histogram.
local BYTES_OUT, BYTES_IN, SECONDS, FIRST_BUCKET = 5, 6, 7, 8
local BOUNDS = 7
local PLACES = FIRST_BUCKET + BOUNDS
local ENTRY_BYTES = PLACES * 8

-- To ask for the length of every request costs more than the few bytes that it would add.
local BODILESS = { GET = true, HEAD = true, OPTIONS = true }

local Entry = ffi.typeof("double[?]")
-- The others' are in no table: the compiler begins anew each time that a table grows in which it looks for a known key.
local pending, others, refused = {}, Entry(PLACES), {}

local function entry(id)
    -- A request whose route had none when it came has no name to be counted by, even if others went meanwhile.
    if not id or labels.full and not labels.has(id) then
        return others
    end
    local found = pending[id]
    if not found then
        found = Entry(PLACES)
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

-- The histogram's bucket, of those that end at 5, 25, 100 and 500 ms, 2.5 and 10 s, and never. A loop here would keep
-- the whole of `log` from being compiled.
local function bucket_of(seconds)
    if seconds <= 0.025 then
        return seconds <= 0.005 and 0 or 1
    end
    if seconds <= 0.5 then
        return seconds <= 0.1 and 2 or 3
    end
    if seconds <= 10 then
        return seconds <= 2.5 and 4 or 5
    end
    return 6
end

-- What a tunnel has carried since it was asked last.
local function count_carried(state)
    local found, tally = entry(state.route.id), state.tally
    add(found, BYTES_OUT, tally.bytes_out)
    add(found, BYTES_IN, tally.bytes_in)
    tally.bytes_out, tally.bytes_in = 0, 0
end

local function count(state)
    if state.tally then
        return count_carried(state)
    end
    local found = entry(state.route.id)
    local status = ngx.status
    local class = status >= 100 and status < 600 and math.floor(status / 100) or 5
    local seconds = ngx.now() - ngx.req.start_time()
    add(found, class - 1, 1)
    add(found, BYTES_OUT, raw.number(raw.variable("bytes_sent")))
    if not state.usual and not BODILESS[ngx.req.get_method()] then
        add(found, BYTES_IN, tonumber(ngx.var.request_length))
    end
    add(found, SECONDS, seconds)
    add(found, FIRST_BUCKET + bucket_of(seconds), 1)
end

function _M.opened(state)
    add(entry(state.route.id), 0, 1)
end

function _M.log()
    local state = ngx.ctx
    if not state.route then
        return
    end
    if state.counted then
        handover.over(state)
    end
    if state.subject == access.PROBE then
        return
    end
    count(state)
    if state.usual then
        return usual.over(state)
    end
    local workspace = state.route.workspace
    if workspace and state.backend and not state.tally and ngx.status < 400 and activity.is_navigation() then
        activity.touch(workspace)
    end
end

-- Where this worker's counters of a route are.
local function place_of(id)
    return ngx.worker.id() .. " " .. id
end

-- The key of the route's own counters, false when it is gone, nil when there are too many routes with some.
local function own_key(id)
    local key = place_of(id)
    if id == OTHER or dict:get(key) then
        return key
    end
    if dict:get("gone " .. id) then
        return false
    end
    if dict:incr("labels", 1, 0) > MOST_LABELS then
        dict:incr("labels", -1)
        return nil
    end
    return key
end

local function accumulate(sums, found)
    for i = 0, PLACES - 1 do
        sums[i] = sums[i] + found[i]
    end
end

local function flush_entry(key, found)
    local before = dict:get(key)
    if before and #before == ENTRY_BYTES then
        accumulate(found, ffi.cast("const double *", before))
    end
    dict:safe_set(key, ffi.string(found, ENTRY_BYTES))
end

local function lives(id)
    return dict:get(place_of(id)) ~= nil
end

local function flush_routes(routes)
    for id, found in pairs(routes) do
        local key = own_key(id)
        labels.set(id, key and true)
        if key then
            flush_entry(key, found)
        elseif key == nil then
            accumulate(others, found)
        end
    end
    flush_entry(own_key(OTHER), others)
    ffi.fill(others, ENTRY_BYTES)
    labels.settle((dict:get("labels") or 0) >= MOST_LABELS, lives)
end

-- The counters in an entry of the dictionary, as numbers.
function _M.read(text)
    local values, found = ffi.cast("const double *", text), {}
    for i = 0, PLACES - 1 do
        found[i + 1] = values[i]
    end
    return found
end

function _M.flush()
    -- They are open for days: counted at their end, a kill would lose all of it.
    for state in tunnels.each() do
        if state.subject ~= access.PROBE then
            count_carried(state)
        end
    end
    local routes, reasons = pending, refused
    pending, refused = {}, {}
    flush_routes(routes)
    for reason, times in pairs(reasons) do
        dict:incr("refused " .. reason, times, 0)
    end
    local by_route, by_workspace = tunnels.counts()
    local open = { pid = ngx.worker.pid(), routes = by_route, workspaces = by_workspace }
    dict:set("open " .. ngx.worker.id(), cjson.encode(open))
end

-- A route that is gone: its counters go, and requests still open must not bring them back.
function _M.forget(id)
    -- Where there is no room nothing else must go for it.
    dict:safe_set("gone " .. id, true, 120)
    for worker = 0, ngx.worker.count() - 1 do
        local key = worker .. " " .. id
        if dict:get(key) then
            dict:delete(key)
            dict:incr("labels", -1, 0)
        end
    end
end

-- A route that is new, or back.
function _M.welcome(id)
    dict:delete("gone " .. id)
end

-- What the worker before this one counted goes on.
local function take_over()
    local mine = place_of("")
    for _, key in ipairs(dict:get_keys(0)) do
        if string.sub(key, 1, #mine) == mine then
            labels.set(string.sub(key, #mine + 1), true)
        end
    end
end

function _M.start()
    take_over()
    _M.flush()
    assert(ngx.timer.every(FLUSH_S, _M.flush))
end

return _M
