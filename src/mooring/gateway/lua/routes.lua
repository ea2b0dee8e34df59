-- The table as a worker sees it. Under a bucket's key the shared dictionary holds the text of its one plain route, or a
-- version: the bucket's JSON is then under the key with `=` in front, and is decoded once a version.
local cjson = require("cjson.safe")
local match = require("match")
local memory = require("memory")
local new_table = require("table.new")
local raw = require("raw")
local single = require("single")
local sub, find, byte = string.sub, string.find, string.byte

local dict = ngx.shared.routes
local raw_dict = raw.dictionary("routes")

local _M = {}

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

-- The decoded bucket of a version. One that is new comes after its text (apply.lua), so what is kept under the version
-- of now is never older than it.
local function decoded_bucket(key, version)
    local bucket = decoded:get(key)
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

-- What is under a bucket's key: the only route, or nil and the bucket, or nothing.
local function under(key)
    local found = dict:get(key)
    if type(found) == "string" then
        return single.decode(found)
    end
    return nil, found and decoded_bucket(key, found)
end

-- The first route of a bucket that matches `path`, as `match` tells.
local function first_in(key, path)
    local route, bucket = under(key)
    if route then
        return match.only(route, path)
    end
    return match.first(bucket, path)
end

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
    local only, entry = under(key)
    if only then
        local route, port, matched = match.only(only, path)
        return route, key, port, matched
    end
    if not entry then
        return nil
    end
    if entry.depth then
        local one, two = leading(path)
        for depth = 2, 1, -1 do
            local segments = depth == 2 and two or depth == 1 and one
            if segments and depth <= entry.depth then
                local bucket_key = key .. " " .. segments
                local route, port, matched = first_in(bucket_key, path)
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

-- Whether a host has just one route, plain and for all of its paths, whose lines are read then.
function _M.has_single(prefix, host, length)
    local text, text_length = raw.text(raw_dict, prefix, host, length)
    if not text then
        return false
    end
    single.read(text, text_length)
    return single.lines.path.length == 0
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
    local only, bucket = under(key)
    for _, route in ipairs(only and { only } or bucket and bucket.routes or {}) do
        if route.id == id then
            return route
        end
    end
end

return _M
