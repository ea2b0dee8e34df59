-- The host cookie of model/grants.py: `v1.<key>.<session>.<subject>.<audience>.<expiry>.<signature>`.
local grants = require("grants")
local hmac = require("hmac")
local base64 = require("ngx.base64")
local find, sub = string.find, string.sub
local matches = ngx.re.find

local _M = {}

local LONGEST = 1024
-- Lua's own patterns are never compiled together with the code around them.
local FORMAT = [[\Av1\.(?:[0-9A-Za-z_:-]+\.){4}[0-9]+\.[0-9A-Za-z_:-]+\z]]

-- The part that begins at `from`, and where the next one begins.
local function part(cookie, from)
    local dot = find(cookie, ".", from, true)
    return sub(cookie, from, dot - 1), dot + 1
end

-- {session, subject, audience, expires} when one of the signing keys signed the cookie, else nil.
function _M.verified(cookie)
    if #cookie > LONGEST or not matches(cookie, FORMAT, "jo") then
        return nil
    end
    local key_id, session, subject, audience, expires
    local place = #"v1." + 1
    key_id, place = part(cookie, place)
    session, place = part(cookie, place)
    subject, place = part(cookie, place)
    audience, place = part(cookie, place)
    expires, place = part(cookie, place)
    local key = grants.key(key_id)
    local mac = key and base64.encode_base64url(hmac.hmac_sha256(key.hmac, sub(cookie, 1, place - 2)))
    if not mac or not hmac.equal(sub(cookie, place), mac) then
        return nil
    end
    return {
        session = session,
        subject = subject,
        audience = string.gsub(audience, "_", "."),
        expires = math.min(tonumber(expires), key.not_after),
    }
end

return _M
