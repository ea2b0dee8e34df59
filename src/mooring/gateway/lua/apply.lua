-- Deltas into the shared dictionary. The agent is its only writer; a delta that does not fit leaves nothing behind.
local cjson = require("cjson.safe")
local metrics = require("metrics")

local routes = ngx.shared.routes
local grants = ngx.shared.grants
local certificates = ngx.shared.certificates

local _M = {}

-- Keys of buckets begin with a listener's name, so no bucket can have this one.
local REVISION = "@revision"

local function restore(dict, before)
    for i = #before, 1, -1 do
        local key, value = before[i][1], before[i][2]
        if value == nil then
            dict:delete(key)
        else
            local ok, err = dict:safe_set(key, value)
            if not ok then
                ngx.log(ngx.CRIT, "cannot restore ", key, ": ", err)
            end
        end
    end
end

-- Sets all of `sets` or none; false when the dictionary is full.
local function set_all(dict, sets)
    local before = {}
    for key, value in pairs(sets) do
        before[#before + 1] = { key, (dict:get(key)) }
        local ok, err = dict:safe_set(key, value)
        if not ok then
            ngx.log(ngx.ERR, "routes: ", err)
            restore(dict, before)
            return false
        end
    end
    return true, before
end

-- What a long frame brought in parts, collected until `apply`.
function _M.begin(frame, connection)
    connection.sets = connection.sets or {}
    for key, value in pairs(frame.sets) do
        connection.sets[key] = value
    end
    return { ok = true }
end

local function merged(frame, connection)
    local sets = connection.sets
    connection.sets = nil
    if not sets then
        return frame.sets
    end
    for key, value in pairs(frame.sets) do
        sets[key] = value
    end
    return sets
end

local function sweep(sets)
    for _, key in ipairs(routes:get_keys(0)) do
        if key ~= REVISION and sets[key] == nil then
            routes:delete(key)
        end
    end
end

local function change_grants(change)
    local ok = set_all(grants, change.sets)
    if not ok then
        return false
    end
    for _, key in ipairs(change.deletes) do
        grants:delete(key)
    end
    if change.complete then
        for _, key in ipairs(grants:get_keys(0)) do
            if key ~= "generation" and change.sets[key] == nil then
                grants:delete(key)
            end
        end
    end
    local generation = math.abs(grants:get("generation") or 0) + 1
    grants:set("generation", grants:get("keys") and generation or -generation)
    return true
end

-- {sets, deletes, gone, complete, grants, epoch, revision}: everything or, with `error`, nothing of it is live.
function _M.apply(frame, connection)
    local sets = merged(frame, connection)
    local live = string.match(routes:get(REVISION) or "", "^(.*) %d+$")
    if not frame.complete and live ~= frame.epoch then
        return { error = "stale" }
    end
    sets[REVISION] = frame.revision
    local ok, before = set_all(routes, sets)
    if not ok then
        return { error = "full" }
    end
    if frame.grants ~= cjson.null and frame.grants and not change_grants(frame.grants) then
        restore(routes, before)
        return { error = "full" }
    end
    for _, key in ipairs(frame.deletes) do
        routes:delete(key)
    end
    if frame.complete then
        sweep(sets)
        routes:flush_expired()
    end
    for _, id in ipairs(frame.gone) do
        metrics.forget(id)
    end
    return { ok = true }
end

function _M.applied()
    return { revision = routes:get(REVISION) or cjson.null }
end

function _M.certificate(frame)
    local ok, err = certificates:safe_set("certificate", frame.pem)
    return ok and { ok = true } or { error = err }
end

return _M
