-- Who sends a request, by Mooring's cookie or bearer token, and what is left of both headers for the backend.
local grants = require("grants")
local session = require("session")
local hmac = require("hmac")
local memory = require("memory")

local _M = {}

local OURS = { ["mooring"] = true, ["__Host-mooring"] = true }
-- A Cookie header seldom changes between the requests of a page: what it says is remembered with it.
local cookies = memory.new(16384)
local tokens = memory.new(1024)

local function read_cookies(header)
    local kept, ours = {}, {}
    for pair in string.gmatch(header, "[^;]+") do
        local name, value = string.match(pair, "^%s*([^=]-)%s*=%s*(.-)%s*$")
        if name and OURS[name] then
            ours[#ours + 1] = value
        else
            kept[#kept + 1] = string.match(pair, "^%s*(.-)%s*$")
        end
    end
    return { rest = table.concat(kept, "; "), ours = #ours > 0 and ours or nil, generation = nil, claims = nil }
end

local function read(header)
    local found = cookies:get(header)
    if not found then
        found = read_cookies(header)
        cookies:set(header, found)
    end
    return found
end

-- The Cookie header without Mooring's own cookies.
function _M.foreign_cookies(header)
    return read(header).rest
end

-- Signatures and revocations are looked at again when the grants have changed.
local function verify(found, generation)
    found.generation = generation
    found.claims = {}
    for _, cookie in ipairs(found.ours) do
        local claims = session.verified(cookie)
        if claims and not grants.revoked(claims.session) then
            found.claims[#found.claims + 1] = claims
        end
    end
end

-- The claims of the first cookie that holds now for `host`, or nil.
function _M.by_cookie(header, host)
    local found = read(header)
    if not found.ours then
        return nil
    end
    local generation = grants.generation()
    if found.generation ~= generation then
        verify(found, generation)
    end
    local now = ngx.time()
    for i = 1, #found.claims do
        local claims = found.claims[i]
        if claims.audience == host and claims.expires > now then
            return claims
        end
    end
end

-- The grant of the bearer token in an Authorization header, or nil. A foreign token is the backend's business.
function _M.by_token(header)
    local token = string.match(header, "^[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]+)$")
    if not token then
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
