-- Changes of who may enter into the shared dictionary, which `grants` reads. The agent is its only writer.
local cjson = require("cjson.safe")
local atomic = require("atomic")

local grants = ngx.shared.grants

local _M = {}

-- Beside what is granted: which grants these are.
local VERSION = "@version"
-- How a key begins that says until when a session is refused.
local REVOKED = "revoked "

-- A new number whatever comes of the change: a worker may have read keys that were taken back.
local function next_generation()
    local generation = math.abs(grants:get("generation") or 0) + 1
    grants:set("generation", grants:get("keys") and generation or -generation)
end

local function sweep(sets)
    for _, key in ipairs(grants:get_keys(0)) do
        if key ~= "generation" and sets[key] == nil then
            grants:delete(key)
        end
    end
end

-- The keys that say which sessions have ended, and all others.
local function parted(sets)
    local ended, granted = {}, {}
    for key, value in pairs(sets) do
        local part = string.sub(key, 1, #REVOKED) == REVOKED and ended or granted
        part[key] = value
    end
    return ended, granted
end

-- {base, version, sets, deletes}: the difference from the version `base` to `version`, or without one all that there
-- is. What was withdrawn is gone in any case, and first: its room may be needed. Sessions that ended come next, by
-- themselves: with tokens that do not fit they would be taken back, and go on. What is new comes whole or not at all.
function _M.change(frame)
    local sets, before = frame.sets, grants:get(VERSION)
    local is_complete = frame.base == cjson.null
    if not is_complete and before ~= frame.base then
        return { error = "stale" }
    end
    if before == frame.version then
        return { ok = true }
    end
    grants:delete(VERSION)
    for _, key in ipairs(frame.deletes) do
        grants:delete(key)
    end
    if is_complete then
        sweep(sets)
    end
    local ended, granted = parted(sets)
    granted[VERSION] = frame.version
    local done = atomic.set_all(grants, ended) and atomic.set_all(grants, granted)
    next_generation()
    return done and { ok = true } or { error = "full" }
end

return _M
