-- Who sends a request, by Mooring's cookie or bearer token, and what is left of both headers for the backend.
local grants = require("grants")
local session = require("session")
local hmac = require("hmac")
local memory = require("memory")
local new_table = require("table.new")
local find, sub = string.find, string.sub
local matches = ngx.re.find

local _M = {}

local OURS = { ["mooring"] = true, ["__Host-mooring"] = true }
-- A Cookie header seldom changes between the requests of a page: what it says is remembered with it, in one flat table
-- of its final size, since a worker keeps thousands.
local remembered = memory.new(1.5 * 2 ^ 20)
local FIELDS = 7
local ONLY_OURS = [[\A(?:__Host-)?mooring=[^;=\s]+\z]]
-- Longer ones are read each time: thousands of strangers' largest headers would be a worker's memory.
local LONGEST = 4096
local LONGEST_TOKEN = 128
local tokens = memory.new(2 ^ 19)

local function pairs_of(header)
    return string.gmatch(header, "%s*([^;]+)")
end

-- The value and the name of one of Mooring's cookies.
local function is_ours(pair)
    local name, value = string.match(pair, "^([^=]-)%s*=%s*(.-)%s*$")
    if name and OURS[name] then
        return value, name
    end
end

-- Where browsers keep `__Host-` cookies only that one counts: a neighbour below the same domain can set the plain one.
local function name_at(host)
    local secure = ngx.var.scheme == "https" or host == "localhost" or string.sub(host, -10) == ".localhost"
    return secure and "__Host-mooring" or "mooring"
end

-- The value and the name of our cookie when it is all that the header says, which most do: nothing of this keeps the
-- code around it from being compiled.
local function only_ours(header)
    if matches(header, ONLY_OURS, "jo") then
        local equals = find(header, "=", 1, true)
        return sub(header, equals + 1), sub(header, 1, equals - 1)
    end
end

-- What is left without Mooring's own cookies; the second value says whether there were any.
local function without_ours(header)
    if only_ours(header) then
        return "", true
    end
    local kept, any = {}, false
    for pair in pairs_of(header) do
        if is_ours(pair) then
            any = true
        else
            kept[#kept + 1] = string.match(pair, "^(.-)%s*$")
        end
    end
    return table.concat(kept, "; "), any
end

local function recall(header)
    local found = remembered:get(header)
    if not found then
        found = new_table(0, FIELDS)
        found.rest, found.ours = without_ours(header)
        if #header <= LONGEST then
            remembered:set(header, found)
        end
    end
    return found
end

-- The Cookie header without Mooring's own cookies.
function _M.foreign_cookies(header)
    return recall(header).rest
end

local function accept(found, value, host)
    local claims = session.verified(value)
    if claims and claims.audience == host and not grants.revoked(claims.session) then
        found.subject, found.session, found.expires = claims.subject, claims.session, claims.expires
        return true
    end
end

-- Another site below the same domain may have put a cookie of our name in front: the first that holds here counts.
local function verify(found, header, host, generation)
    found.generation, found.host, found.subject = generation, host, nil
    local wanted = name_at(host)
    local value, name = only_ours(header)
    if value then
        return name == wanted and accept(found, value, host)
    end
    for pair in pairs_of(header) do
        value, name = is_ours(pair)
        if name == wanted and accept(found, value, host) then
            return
        end
    end
end

-- {subject, session} of the first cookie that holds now for `host`, or nil. Signatures and revocations are looked at
-- again when the grants have changed, as `generation` tells.
function _M.by_cookie(header, host, generation)
    local found = recall(header)
    if not found.ours then
        return nil
    end
    if found.generation ~= generation or found.host ~= host then
        verify(found, header, host, generation)
    end
    return found.subject and found.expires > ngx.time() and found or nil
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
