-- What the server granted: signing keys, bearer tokens, revoked sessions. One number, `generation`, changes with them,
-- so that a worker looks again only then; it is not above 0 while nothing is granted, and then nothing but public
-- routes can be entered.
local cjson = require("cjson.safe")
local base64 = require("ngx.base64")
local hmac = require("hmac")

local dict = ngx.shared.grants

local _M = {}

local keys, seen = {}, nil

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
    local generation = dict:get("generation") or 0
    if generation ~= seen then
        local text = dict:get("keys")
        keys, seen = text and decoded(text) or {}, generation
    end
    return generation
end

-- Whether the server has been heard lately; it must be known before a "no" is certain.
function _M.known()
    return _M.generation() > 0
end

-- {hmac (what hmac.lua needs of it), not_after} of the key that had this id when `generation` was asked, or nil.
function _M.key(id)
    return keys[id]
end

-- {subject, session, expires} of a bearer token by its SHA-256 in hex, or nil.
function _M.token(sha256)
    local text = dict:get("token " .. sha256)
    return text and cjson.decode(text)
end

function _M.revoked(session)
    local till = dict:get("revoked " .. session)
    return till ~= nil and till > ngx.time()
end

return _M
