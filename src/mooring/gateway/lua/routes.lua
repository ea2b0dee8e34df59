-- The table as a worker sees it: buckets in the shared dictionary, each decoded once a version.
local cjson = require("cjson.safe")
local match = require("match")
local memory = require("memory")
local new_table = require("table.new")
local sub, find, byte = string.sub, string.find, string.byte

local dict = ngx.shared.routes

local _M = {}

local CHANGES = "@changes"

-- About 1,000 to 2,000 of them: all of 10,000 hosts would save time, and take a worker to 30 MB (docs/decisions/).
local decoded = memory.new(2 ^ 19)
-- The set of one subject, shared by all routes that let in nobody else.
local alone = setmetatable({}, { __mode = "v" })

local function shared(subjects)
    local only = subjects and next(subjects)
    if not only or next(subjects, only) then
        return subjects
    end
    alone[only] = alone[only] or subjects
    return alone[only]
end

-- The bucket as its version tells, nil when there is none. A version that is new comes after its text (apply.lua), so
-- what is kept under the version of now is never older than it.
local function looked_up(key, bucket)
    local version = dict:get(key)
    if not version then
        return nil
    end
    if bucket and bucket.version == version then
        return bucket
    end
    local text = dict:get("=" .. key)
    bucket = text and cjson.decode(text)
    if not bucket then
        return nil
    end
    for _, route in ipairs(bucket.routes) do
        route.subjects = shared(route.subjects)
    end
    bucket.version = version
    decoded:set(key, bucket)
    return bucket
end

-- The decoded bucket, nil when there is none. Its version is looked up when anything in the table has changed: the one
-- number that every request reads is in the processor's cache, while the versions lie among those of all hosts.
local function bucket_of(key)
    local changes = dict:get(CHANGES)
    local bucket = decoded:get(key)
    if bucket and changes and bucket.changes == changes then
        return bucket
    end
    bucket = looked_up(key, bucket)
    if bucket then
        bucket.changes = changes
    end
    return bucket
end
_M.bucket = bucket_of

-- Up to two leading segments of a path: "/a/b/c" gives "/a", "/a/b".
local function leading(path)
    local first = find(path, "/", 2, true)
    local one = first and sub(path, 1, first - 1) or path
    if one == "/" then
        return nil
    end
    if not first or first == #path then
        return one
    end
    local second = find(path, "/", first + 1, true)
    return one, second and sub(path, 1, second - 1) or path
end

local function in_host(key, path)
    local entry = bucket_of(key)
    if not entry then
        return nil
    end
    if entry.depth then
        local one, two = leading(path)
        for depth = 2, 1, -1 do
            local segments = depth == 2 and two or depth == 1 and one
            if segments and depth <= entry.depth then
                local bucket_key = key .. " " .. segments
                local bucket = bucket_of(bucket_key)
                local route, port, matched = match.first(bucket, path)
                if route then
                    return route, bucket_key, port, matched
                end
            end
        end
    end
    local route, port, matched = match.first(entry, path)
    return route, key, port, matched
end

-- One table a request, of its final size from the start: growing it would cost more than filling it.
local FIELDS = 16

local function state_of(route, key, port, matched)
    if not route then
        return nil
    end
    local state = new_table(0, FIELDS)
    state.route, state.bucket, state.port, state.matched = route, key, port, matched
    return state
end

-- The route for a request: exact host, `p{port}--` host, wildcard hosts from the longest, catch-all. Gives nil or
-- {route, bucket (its key), port (asked for in host or path), matched (length of the path that matched)}.
function _M.find(listener, host, path)
    local prefix = listener .. " "
    local route, key, port, matched = in_host(prefix .. host, path)
    if route then
        return state_of(route, key, port, matched)
    end
    if byte(host, 1) == 112 then
        local _, last, digits = find(host, "^p([1-9]%d?%d?%d?%d?)%-%-")
        if digits and tonumber(digits) <= 65535 then
            route, key, port, matched = in_host(prefix .. "p{port}--" .. sub(host, last + 1), path)
            if route then
                return state_of(route, key, port or digits, matched)
            end
        end
    end
    local dot = find(host, ".", 1, true)
    while dot do
        route, key, port, matched = in_host(prefix .. "*" .. sub(host, dot), path)
        if route then
            return state_of(route, key, port, matched)
        end
        dot = find(host, ".", dot + 1, true)
    end
    route, key, port, matched = in_host(prefix .. "*", path)
    return state_of(route, key, port, matched)
end

-- Whether any route is for this host.
function _M.knows(listener, host)
    local prefix = listener .. " "
    local ports = string.gsub(host, "^p[1-9]%d*%-%-", "p{port}--")
    if dict:get(prefix .. host) or dict:get(prefix .. ports) or dict:get(prefix .. "*") then
        return true
    end
    local dot = find(host, ".", 1, true)
    while dot do
        if dict:get(prefix .. "*" .. sub(host, dot)) then
            return true
        end
        dot = find(host, ".", dot + 1, true)
    end
    return false
end

-- The route of that identity as it is now in its bucket, nil when it is gone: what an open tunnel asks.
function _M.again(key, id)
    local bucket = bucket_of(key)
    for _, route in ipairs(bucket and bucket.routes or {}) do
        if route.id == id then
            return route
        end
    end
end

return _M
