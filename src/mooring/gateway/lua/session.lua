-- The host cookie of model/grants.py: `v1.<key>.<session>.<subject>.<audience>.<expiry>.<signature>`.
local grants = require("grants")
local hmac = require("hmac")
local replace = require("resty.core.utils").str_replace_char
local byte, find, sub = string.byte, string.find, string.sub

local _M = {}

local LONGEST = 1024
local DOT = 46

-- The part of `text` that begins at `from`, and where the next one begins.
local function part(text, from)
    local dot = find(text, ".", from, true) or #text
    return sub(text, from, dot - 1), dot + 1
end

-- The session and the subject of the cookie that `text` holds from `from` to its end, when one of the signing keys
-- signed it for `host` and it holds now. Nothing is remembered: to check costs less than to look up what was found out
-- before, and cannot be out of date. What is not signed is not read.
function _M.verified(text, from, host)
    if #text - from >= LONGEST or find(text, "v1.", from, true) ~= from then
        return nil
    end
    local dot = find(text, ".", from + 3, true)
    local key = dot and grants.key(sub(text, from + 3, dot - 1))
    local last = #text - hmac.TEXT_BYTES
    if not key or last <= dot or byte(text, last) ~= DOT or not hmac.signed(key.hmac, text, from, last) then
        return nil
    end
    local session, subject
    session, dot = part(text, dot + 1)
    subject, dot = part(text, dot)
    local audience = replace(host, ".", "_") .. "."
    if find(text, audience, dot, true) ~= dot then
        return nil
    end
    local expires = tonumber(sub(text, dot + #audience, last - 1)) or 0
    if math.min(expires, key.not_after) > ngx.time() and not grants.revoked(session) then
        return session, subject
    end
end

return _M
