-- Deltas into the shared dictionary. The agent is its only writer; a delta that does not fit leaves nothing behind.
local atomic = require("atomic")
local cjson = require("cjson.safe")
local metrics = require("metrics")

local routes = ngx.shared.routes
local certificates = ngx.shared.certificates
local restore, set_all = atomic.restore, atomic.set_all

local _M = {}

-- Keys of buckets begin with a listener's name, a letter; what is under them `routes` says.
local REVISION, VERSION, CHANGES = "@revision", "@version", "@changes"

-- A bucket is the text of one plain route, or JSON, which begins with a brace.
local function is_single(text)
    return string.byte(text) ~= 123
end

-- JSON first, then a new version of each: a worker that sees the version finds the text, and one that has a bucket
-- decoded looks at no text before all have arrived.
local function set_buckets(sets)
    local texts, heads = {}, {}
    local version = routes:incr(VERSION, 1, 0)
    for key, text in pairs(sets) do
        if is_single(text) then
            heads[key] = text
        else
            texts["=" .. key], heads[key] = text, version
        end
    end
    local old_texts = set_all(routes, texts)
    if not old_texts then
        return nil
    end
    local old_heads = set_all(routes, heads)
    if not old_heads then
        restore(routes, old_texts)
        return nil
    end
    return function()
        restore(routes, old_texts)
        -- Never the old number again: under it a worker may have kept what it read in between.
        local again = routes:incr(VERSION, 1, 0)
        for _, entry in ipairs(old_heads) do
            entry[2] = type(entry[2]) == "number" and again or entry[2]
        end
        restore(routes, old_heads)
    end
end

local function delete_bucket(key)
    routes:delete(key)
    routes:delete("=" .. key)
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
        if sets[key] == nil and string.find(key, "^[^@=]") then
            delete_bucket(key)
        end
    end
end

local function take(frame, sets)
    local live = string.match(routes:get(REVISION) or "", "^(.*) %d+$")
    if not frame.complete and live ~= frame.epoch then
        return { error = "stale" }
    end
    local undo = set_buckets(sets)
    if not undo then
        return { error = "full" }
    end
    if not routes:safe_set(REVISION, frame.revision) then
        undo()
        return { error = "full" }
    end
    for _, key in ipairs(frame.deletes) do
        delete_bucket(key)
    end
    for key, text in pairs(sets) do
        if is_single(text) then
            routes:delete("=" .. key)
        end
    end
    if frame.complete then
        sweep(sets)
        -- A whole table leaves megabytes of texts behind in this one worker.
        collectgarbage()
    end
    for _, id in ipairs(frame.gone) do
        metrics.forget(id)
    end
    for _, id in ipairs(frame.came) do
        metrics.welcome(id)
    end
    return { ok = true }
end

-- {sets, deletes, gone, came, complete, epoch, revision}: everything or, with `error`, nothing of it is live.
function _M.apply(frame, connection)
    local ok, answer = pcall(take, frame, merged(frame, connection))
    -- Last, and whatever came of it: what a worker has looked up in between it looks up once more.
    routes:incr(CHANGES, 1, 0)
    if not ok then
        error(answer, 0)
    end
    return answer
end

function _M.applied()
    return { revision = routes:get(REVISION) or cjson.null }
end

function _M.certificate(frame)
    local before = certificates:get("certificate")
    local ok, err = certificates:safe_set("certificate", frame.pem)
    if not ok and before then
        -- One that does not fit has driven it out: every handshake would end in a certificate that nobody trusts.
        certificates:safe_set("certificate", before)
    end
    return ok and { ok = true } or { error = err }
end

return _M
