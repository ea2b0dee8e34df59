-- What the server granted: signing keys, bearer tokens, revoked sessions. One number, `generation`, changes with them,
-- so that a worker looks again only then; it is not above 0 while nothing is granted, and then nothing but public
-- routes can be entered.
local cjson = require("cjson.safe")
local ffi = require("ffi")
local base64 = require("ngx.base64")
local hmac = require("hmac")
local raw = require("raw")

local dict = ngx.shared.grants
local raw_dict = raw.dictionary("grants")

local _M = {}

local LONGEST_SESSION = 256

local keys, seen = {}, nil
-- The key that was asked for last: nearly always the one that signs now.
local recent, recent_id = nil, ""

local function decoded(text)
    local found = {}
    for _, key in ipairs(cjson.decode(text) or {}) do
        local secret = base64.decode_base64url(key.secret)
        found[key.id] = { hmac = hmac.key(secret), not_after = key.not_after }
    end
    return found
end

-- Keys are read after the number: at worst they are newer than it, and will be read once more.
function _M.generation()
    local generation = raw.stored_number(raw_dict, "generation", "", 0) or 0
    if generation ~= seen then
        local text = dict:get("keys")
        keys, seen = text and decoded(text) or {}, generation
        recent, recent_id = nil, ""
    end
    return generation
end

-- Whether the server has been heard lately; it must be known before a "no" is certain.
function _M.known()
    return _M.generation() > 0
end

-- {hmac (what hmac.lua needs of it), not_after} of the key that had this id when `generation` was asked, or nil.
function _M.key(id, length)
    if not recent or not raw.equal(id, length, recent_id) then
        recent_id = ffi.string(id, length)
        recent = keys[recent_id]
    end
    return recent
end

-- {subject, session, expires} of a bearer token by its SHA-256 in hex, or nil.
function _M.token(sha256)
    local text = dict:get("token " .. sha256)
    return text and cjson.decode(text)
end

-- Whether a session, given as a string or as bytes, is over; so is one whose name is too long for any.
function _M.revoked(session, length)
    if length > LONGEST_SESSION then
        return true
    end
    local till = raw.stored_number(raw_dict, "revoked ", session, length)
    return till ~= nil and till > ngx.time()
end

return _M
