-- What the server granted: signing keys, bearer tokens, revoked sessions. One number, `generation`, changes with them,
-- so that a worker looks again only then; it is not above 0 while nothing is granted, and then nothing but public
-- routes can be entered.
local cjson = require("cjson.safe")
local base64 = require("ngx.base64")
local hmac = require("hmac")

local dict = ngx.shared.grants

local _M = {}

local keys, keys_text = {}, nil

function _M.generation()
    return dict:get("generation") or 0
end

-- Whether the server has been heard lately; it must be known before a "no" is certain.
function _M.known()
    return _M.generation() > 0
end

local function decoded(text)
    local found = {}
    for _, key in ipairs(cjson.decode(text) or {}) do
        local secret = base64.decode_base64url(key.secret)
        found[key.id] = { hmac = hmac.key(secret), not_after = key.not_after }
    end
    return found
end

-- {hmac (what hmac.lua needs of it), not_after} of the signing key of that id, or nil.
function _M.key(id)
    local text = dict:get("keys")
    if text ~= keys_text then
        keys, keys_text = text and decoded(text) or {}, text
    end
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
