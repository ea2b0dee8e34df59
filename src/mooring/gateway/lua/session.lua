-- The host cookie of model/grants.py: `v1.<key>.<session>.<subject>.<audience>.<expiry>.<signature>`.
local ffi = require("ffi")
local grants = require("grants")
local hmac = require("hmac")
local raw = require("raw")
require("resty.core.utils")
local C, find = ffi.C, raw.find

ffi.cdef([[
typedef struct { const unsigned char *session, *subject; int session_length, subject_length; } mooring_claims;
]])

local LONGEST, LONGEST_HOST = 1024, 255
local VERSION = "v1."
local DOT, UNDERSCORE = 46, 95

local audience = ffi.new("unsigned char[?]", LONGEST_HOST)

-- Of whom the cookie said that was verified last; they point into it. Who has it as a string puts it into `held`: else
-- it may be collected before the claims are read.
local claims = ffi.new("mooring_claims")
local _M = { claims = claims, held = "" }

local function is_for(from, host, length)
    ffi.copy(audience, host, length)
    C.ngx_http_lua_ffi_str_replace_char(audience, length, DOT, UNDERSCORE)
    return C.memcmp(from, audience, length) == 0 and from[length] == DOT
end

-- The dot after a part that begins at `from`; nil when there is none.
local function part(from, till)
    return from and find(from + 1, till, DOT)
end

-- Whether one of the signing keys signed this cookie's value for `host`, and it holds now. Nothing is remembered: to
-- check costs less than to look up what was found before, and cannot be out of date. What is not signed is not read.
function _M.verified(value, length, host, host_length)
    local last = length - hmac.TEXT_BYTES - 1
    if length > LONGEST or last <= #VERSION or value[last] ~= DOT or C.memcmp(value, VERSION, #VERSION) ~= 0 then
        return false
    end
    local till = value + last
    local id = part(value + #VERSION - 1, till)
    local key = id and grants.key(value + #VERSION, id - value - #VERSION)
    if not key or not hmac.signed(key.hmac, value, last, till + 1) then
        return false
    end
    local session = part(id, till)
    local subject = part(session, till)
    if not subject or host_length > LONGEST_HOST or till - subject <= host_length + 2 then
        return false
    end
    claims.session, claims.session_length = id + 1, session - id - 1
    claims.subject, claims.subject_length = session + 1, subject - session - 1
    local expires_at = subject + host_length + 2
    local expires = is_for(subject + 1, host, host_length) and raw.number(expires_at, till - expires_at)
    local ends = math.min(expires or 0, key.not_after)
    return ends > ngx.time() and not grants.revoked(claims.session, claims.session_length)
end

return _M
