-- Who may enter a route. Everything here is decided from what the agent pushed; nobody is asked.
local credentials = require("credentials")
local ffi = require("ffi")
local grants = require("grants")
local raw = require("raw")
local session = require("session")
local settings = require("settings")
local single = require("single")
local C, string_of = ffi.C, ffi.string

local _M = {}

_M.PROBE = "mooring:probe"

local SAFE = { GET = true, HEAD = true, OPTIONS = true }

-- Whether `subject` may enter `route`.
function _M.allows(route, subject)
    if route.access == "public" then
        return true
    end
    if subject == nil then
        return false
    end
    if subject == _M.PROBE then
        return route.workspace ~= nil
    end
    if route.access == "owner" then
        return route.owner == subject
    end
    if route.access == "subjects" then
        return route.subjects[subject] == true
    end
    return true
end

-- An editor in a frame of somebody else's page would be typed into unseen; a link to it is followed as a whole page. A
-- port may be framed: the editor shows it so.
local function foreign_page(state, site)
    if site == "same-origin" or site == "none" or not state.route.workspace or state.port then
        return nil
    end
    local links = ngx.var.http_sec_fetch_mode == "navigate" and ngx.var.http_sec_fetch_dest == "document"
    return not links and "origin" or nil
end

-- The reason to refuse a request that a page of another origin may have caused, or nil. A cookie is sent whoever
-- caused the request; a browser always says the origin of one that changes state or opens a WebSocket.
local function foreign_origin(state)
    local site = ngx.var.http_sec_fetch_site
    -- No browser says nothing, and to the pattern of usual requests (server.conf) that is no header at all.
    site = site ~= "" and site or nil
    if SAFE[ngx.req.get_method()] and not state.websocket then
        return site and foreign_page(state, site) or nil
    end
    local origin = ngx.var.http_origin
    if site and site ~= "same-origin" and site ~= "none" then
        return "origin"
    end
    if origin == nil and site ~= nil and not state.websocket then
        return nil
    end
    if origin ~= ngx.var.scheme .. "://" .. state.authority then
        return "origin"
    end
end

local function identify(state, cookie, grant)
    if grant then
        state.subject, state.session, state.token = grant.subject, grant.session, grant.sha256
        state.cookie = cookie and credentials.foreign_cookies(cookie)
    elseif cookie then
        local holds
        local host, is_https = state.host, ngx.var.scheme == "https"
        session.held = cookie
        holds, state.cookie = credentials.by_cookie(raw.of(cookie), #cookie, raw.of(host), #host, is_https)
        if holds then
            local claims = session.claims
            state.session = string_of(claims.session, claims.session_length)
            state.subject = string_of(claims.subject, claims.subject_length)
        end
    end
end

-- Whether a token that is not known here may be ours all the same: without grants nobody can tell. With them one of
-- that form is another Mooring's, which may stand behind a public route.
local function may_be_ours(authorization)
    return grants.generation() <= 0 and string.find(authorization, "^%a+ +mrg_[%w_-]+$") ~= nil
end

-- nil when the request may pass, else the reason: "withheld", "unauthenticated", "forbidden", "origin". What the
-- backend may see of Cookie and Authorization is in `state.cookie` and `state.authorization` afterwards.
function _M.refusal(state)
    local route = state.route
    local cookie, authorization = ngx.var.http_cookie, ngx.var.http_authorization
    local grant = authorization and credentials.by_token(authorization)
    -- Ours is for no backend, also where nobody asked for it.
    state.authorization = authorization and not grant and not may_be_ours(authorization) and authorization or nil
    if route.access == "public" then
        state.cookie = cookie and credentials.foreign_cookies(cookie)
        return nil
    end
    if grants.generation() <= 0 then
        return "withheld"
    end
    identify(state, cookie, grant)
    if state.subject == nil then
        return "unauthenticated"
    end
    if not _M.allows(route, state.subject) then
        return "forbidden"
    end
    return not state.token and foreign_origin(state) or nil
end

-- Whether a usual request (server.conf) may pass to the route whose lines were read last, and what the backend may see
-- of its Cookie header. It has no bearer token, and no foreign page can have caused it that could see the answer.
function _M.lets_in(host, host_length, is_https, cookie, length)
    if single.is_public() then
        return true, length > 0 and credentials.foreign_cookies(string_of(cookie, length)) or ""
    end
    if length == 0 or grants.generation() <= 0 then
        return false
    end
    local holds, rest = credentials.by_cookie(cookie, length, host, host_length, is_https)
    local owner, claims = single.lines.owner, session.claims
    if not holds or raw.equal(claims.subject, claims.subject_length, _M.PROBE) then
        return false
    end
    local is_owner = owner.length == claims.subject_length and C.memcmp(owner.at, claims.subject, owner.length) == 0
    return is_owner or owner.length == 0, rest
end

-- Whether a tunnel that was let in would be let in now. While the server is not heard nobody is thrown out: the
-- session was valid, and what changed since cannot be known.
function _M.still(state, route)
    if route.access == "public" or not grants.known() then
        return true
    end
    if not _M.allows(route, state.subject) or (state.session and grants.revoked(state.session, #state.session)) then
        return false
    end
    return not state.token or grants.token(state.token) ~= nil
end

-- Where a browser signs in for the page that it asked for.
function _M.sign_in(state)
    local port = string.match(state.authority, ":%d+$") or ""
    local here = ngx.var.scheme .. "://" .. state.authority .. ngx.var.request_uri
    return ngx.var.scheme .. "://" .. settings.console .. port .. "/open?url=" .. ngx.escape_uri(here)
end

return _M
