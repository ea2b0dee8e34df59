-- The host cookie of model/grants.py: `v1.<key>.<session>.<subject>.<audience>.<expiry>.<signature>`.
local grants = require("grants")
local hmac = require("hmac")
local base64 = require("ngx.base64")

local _M = {}

local PART = "([%w_:-]+)"
local FORMAT = "^(v1%." .. string.rep(PART .. "%.", 4) .. "(%d+))%." .. PART .. "$"

-- {key, session, subject, audience, expires} when one of the signing keys signed the cookie, else nil.
function _M.verified(cookie)
    if #cookie > 1024 then
        return nil
    end
    local signed, key_id, session, subject, audience, expires, mac = string.match(cookie, FORMAT)
    local key = signed and grants.key(key_id)
    if not key or not hmac.equal(mac, base64.encode_base64url(hmac.hmac_sha256(key.secret, signed))) then
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
