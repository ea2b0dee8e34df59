-- Who sends a request, by Mooring's cookie or bearer token, and what is left of both headers for the backend.
local ffi = require("ffi")
local grants = require("grants")
local hmac = require("hmac")
local memory = require("memory")
local raw = require("raw")
local session = require("session")
local C = ffi.C
local find, match, sub = string.find, string.match, string.sub

local _M = {}

local PLAIN, SECURE = "mooring", "__Host-mooring"
local LOCAL = ".localhost"
local SEMICOLON = 59
local NONE = {}
-- How a header begins whose first cookie may be ours.
local BEGINS = { [PLAIN] = PLAIN .. "=v1.", [SECURE] = SECURE .. "=v1." }
-- A Cookie header seldom changes between the requests of a page: what of it is whose is remembered.
local remembered = memory.new(1.5 * 2 ^ 20)
-- Longer ones are read each time: thousands of strangers' largest headers would be a worker's memory. So would be the
-- pieces of those that hold our name a hundred times.
local LONGEST = 4096
local MOST_OURS = 4
local LONGEST_TOKEN = 128
local tokens = memory.new(2 ^ 19)

-- One pattern for both ends would try each space of 32,000 as the first of the last ones: seconds of a worker.
local function trimmed(text)
    local from = find(text, "%S")
    return from and match(text, "^.*%S", from) or ""
end

-- The value and the name of one of Mooring's cookies.
local function is_ours(pair)
    local equals = find(pair, "=", 1, true)
    local name = equals and trimmed(sub(pair, 1, equals - 1))
    if name and BEGINS[name] then
        return trimmed(sub(pair, equals + 1)), name
    end
end

-- {rest (the header without our cookies), ours (their number), [name of one] = {its values, in order}}
local function split(header)
    local found, kept = { ours = 0 }, {}
    for pair in string.gmatch(header, "[^;]+") do
        local value, name = is_ours(pair)
        if value then
            found.ours = found.ours + 1
            found[name] = found[name] or {}
            table.insert(found[name], value)
        else
            kept[#kept + 1] = trimmed(pair)
        end
    end
    found.rest = table.concat(kept, "; ")
    return found
end

local function recall(header)
    local found = remembered:get(header)
    if not found then
        found = split(header)
        if #header <= LONGEST and found.ours <= MOST_OURS then
            remembered:set(header, found)
        end
    end
    return found
end

local function is_local(host, length)
    local before = length - #LOCAL
    return before > 0 and C.memcmp(host + before, LOCAL, #LOCAL) == 0 or raw.equal(host, length, "localhost")
end

-- Whether the header is one cookie, from which nothing has to be taken, and it holds. Most are.
local function is_ours_alone(header, length, name, host, host_length)
    local begins = BEGINS[name]
    if length <= #begins or C.memcmp(header, begins, #begins) ~= 0 or raw.find(header, header + length, SEMICOLON) then
        return false
    end
    local before = #name + 1
    return session.verified(header + before, length - before, host, host_length)
end

-- The Cookie header without Mooring's own cookies.
function _M.foreign_cookies(header)
    return recall(header).rest
end

-- Whether a cookie of the header holds now for `host`, and what `foreign_cookies` says. The first one that does is in
-- `session.claims` then: another site below the same domain may have put one of our name in front.
function _M.by_cookie(header, length, host, host_length, is_https)
    -- Where browsers keep `__Host-` cookies only that one counts: a neighbour below the domain can set the plain one.
    local name = (is_https or is_local(host, host_length)) and SECURE or PLAIN
    if is_ours_alone(header, length, name, host, host_length) then
        return true, ""
    end
    local found = recall(ffi.string(header, length))
    for _, value in ipairs(found[name] or NONE) do
        session.held = value
        if session.verified(raw.of(value), #value, host, host_length) then
            return true, found.rest
        end
    end
    return false, found.rest
end

-- The grant of the bearer token in an Authorization header, or nil. A foreign token is the backend's business.
function _M.by_token(header)
    local token = match(header, "^[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]+)$")
    if not token or #token > LONGEST_TOKEN then
        return nil
    end
    local sha256 = tokens:get(token)
    if not sha256 then
        sha256 = hmac.sha256_hex(token)
        tokens:set(token, sha256)
    end
    local grant = grants.token(sha256)
    if not grant or grants.revoked(grant.session, #grant.session) then
        return nil
    end
    if grant.expires == 0 or grant.expires > ngx.time() then
        grant.sha256 = sha256
        return grant
    end
end

return _M
