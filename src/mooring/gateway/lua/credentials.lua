-- Who sends a request, by Mooring's cookie or bearer token, and what is left of both headers for the backend.
local grants = require("grants")
local hmac = require("hmac")
local memory = require("memory")
local session_cookie = require("session")
local find, sub = string.find, string.sub

local _M = {}

local PLAIN, SECURE = "mooring", "__Host-mooring"
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

-- The value and the name of one of Mooring's cookies.
local function is_ours(pair)
    local name, value = string.match(pair, "^([^=]-)%s*=%s*(.-)%s*$")
    if name and BEGINS[name] then
        return value, name
    end
end

-- {rest (the header without our cookies), ours (their number), [name of one] = {its values, in order}}
local function split(header)
    local found, kept = { ours = 0 }, {}
    for pair in string.gmatch(header, "%s*([^;]+)") do
        local value, name = is_ours(pair)
        if value then
            found.ours = found.ours + 1
            found[name] = found[name] or {}
            table.insert(found[name], value)
        else
            kept[#kept + 1] = string.match(pair, "^(.-)%s*$")
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

-- Where browsers keep `__Host-` cookies only that one counts: a neighbour below the same domain can set the plain one.
local function name_at(host, scheme)
    local secure = scheme == "https" or host == "localhost" or sub(host, -10) == ".localhost"
    return secure and SECURE or PLAIN
end

-- The Cookie header without Mooring's own cookies.
function _M.foreign_cookies(header)
    return recall(header).rest
end

-- Session and subject of the first cookie that holds now for `host`, nil when none does; then what `foreign_cookies`
-- says. Another site below the same domain may have put a cookie of our name in front.
function _M.by_cookie(header, host, scheme)
    local name = name_at(host, scheme)
    local value_at = #name + 2
    -- Most headers are one cookie, which nothing has to be taken from.
    if find(header, BEGINS[name], 1, true) == 1 and not find(header, ";", value_at, true) then
        local session, subject = session_cookie.verified(header, value_at, host)
        if session then
            return session, subject, ""
        end
    end
    local found = recall(header)
    for _, value in ipairs(found[name] or {}) do
        local session, subject = session_cookie.verified(value, 1, host)
        if session then
            return session, subject, found.rest
        end
    end
    return nil, nil, found.rest
end

-- The grant of the bearer token in an Authorization header, or nil. A foreign token is the backend's business.
function _M.by_token(header)
    local token = string.match(header, "^[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]+)$")
    if not token or #token > LONGEST_TOKEN then
        return nil
    end
    local sha256 = tokens:get(token)
    if not sha256 then
        sha256 = hmac.sha256_hex(token)
        tokens:set(token, sha256)
    end
    local grant = grants.token(sha256)
    if grant and (grant.expires == 0 or grant.expires > ngx.time()) and not grants.revoked(grant.session) then
        grant.sha256 = sha256
        return grant
    end
end

return _M
