-- Answers of the gateway itself: a page for a person, problem+json (RFC 9457) for a program.
local access = require("access")
local cjson = require("cjson.safe")
local metrics = require("metrics")
local pages = require("pages")
local settings = require("settings")

local _M = {}

local function wants_page()
    local accept = ngx.var.http_accept
    return accept ~= nil and string.find(accept, "text/html", 1, true) ~= nil
end

local function navigates()
    local mode, method = ngx.var.http_sec_fetch_mode, ngx.req.get_method()
    if method ~= "GET" and method ~= "HEAD" then
        return false
    end
    return mode == "navigate" or (mode == nil and wants_page())
end

local function say(status, body)
    ngx.status = status
    ngx.header["Cache-Control"] = "no-store"
    ngx.header["Content-Length"] = #body
    if ngx.req.get_method() == "HEAD" then
        ngx.send_headers()
    else
        ngx.print(body)
    end
    return ngx.exit(ngx.HTTP_OK)
end

local function problem(status, code, title, detail)
    ngx.header["Content-Type"] = "application/problem+json"
    local body = { type = "about:blank", status = status, code = code, title = title, detail = detail }
    return say(status, cjson.encode(body))
end

local function page(status, name, values)
    ngx.header["Content-Type"] = "text/html; charset=utf-8"
    ngx.header["X-Content-Type-Options"] = "nosniff"
    return say(status, pages.render(name, values))
end

local function console_url()
    local port = string.match(ngx.var.http_host or "", ":%d+$") or ""
    return ngx.var.scheme .. "://" .. settings.console .. port .. "/"
end

-- `answer` is {status, code, title, detail, page}; a browser gets the page, everybody else the problem.
local function reply(answer)
    if answer.page and wants_page() then
        local values = {
            host = ngx.var.host, title = answer.title, console = console_url(),
            detail = string.gsub(answer.detail, "^%l", string.upper) .. ".", hint = answer.hint,
        }
        return page(answer.status, answer.page, values)
    end
    return problem(answer.status, answer.code, answer.title, answer.detail)
end

local BAD_REQUEST = {
    status = 400, code = "invalid_input", title = "Bad request", page = "unreadable",
    detail = "the path or the Host header can be read in more than one way, or the host's name is too long",
}

function _M.bad_request()
    metrics.refused("bad_request")
    return reply(BAD_REQUEST)
end

local UNKNOWN = {
    status = 404, code = "not_found", title = "Nothing is here", page = "unknown",
    detail = "no workspace and no route has this address",
}

function _M.unknown()
    metrics.refused("unknown")
    return reply(UNKNOWN)
end

local STOPPED = {
    status = 503, code = "stopped", title = "Stopped", page = "stopped",
    detail = "this workspace is stopped; start it in the console or with: mooring workspace start",
}

function _M.stopped()
    return reply(STOPPED)
end

local STARTING = {
    status = 503, code = "starting", title = "Starting", page = "starting",
    detail = "this workspace is starting; try again in a moment",
}

function _M.starting()
    ngx.header["Retry-After"] = "1"
    return reply(STARTING)
end

local CHECK = "If this is the address of a server that you started, check that it still runs and listens on this port."
local UNAVAILABLE = {
    status = 502, code = "unavailable", title = "No answer", page = "unavailable",
    detail = "nothing answers at this address just now", hint = CHECK,
}

function _M.unavailable()
    metrics.refused("no_backend")
    return reply(UNAVAILABLE)
end

local WITHHELD = {
    status = 503, code = "unavailable", title = "Access cannot be checked now", page = "unavailable",
    detail = "the gateway has not heard from the server for a minute and cannot check who may enter",
}

function _M.withheld()
    metrics.refused("withheld")
    ngx.header["Retry-After"] = "5"
    return reply(WITHHELD)
end

function _M.unauthenticated(state)
    metrics.refused("unauthenticated")
    if navigates() then
        ngx.header["Cache-Control"] = "no-store"
        return ngx.redirect(access.sign_in(state), 302)
    end
    ngx.header["WWW-Authenticate"] = 'Bearer realm="mooring"'
    return problem(401, "unauthenticated", "Not signed in", "send a bearer token, or sign in with a browser")
end

local FORBIDDEN = {
    status = 403, code = "forbidden", title = "Not allowed", page = "forbidden",
    detail = "you are signed in, but this address is not for you",
    hint = "Sign in as somebody who may, or ask who runs this Mooring.",
}

function _M.forbidden()
    metrics.refused("forbidden")
    return reply(FORBIDDEN)
end

local ORIGIN = {
    status = 403, code = "forbidden", title = "Not allowed", page = "forbidden",
    detail = "a page of another origin caused this request",
}

function _M.origin()
    metrics.refused("origin")
    return reply(ORIGIN)
end

-- `status` is what nginx would have said of a backend.
function _M.failed(status)
    local answer = {
        status = status, code = status == 504 and "deadline_exceeded" or "unavailable", page = "unavailable",
        title = status == 504 and "Too slow" or "No answer",
        detail = status == 413 and "the request is too large" or UNAVAILABLE.detail,
        hint = status ~= 413 and CHECK or nil,
    }
    return reply(answer)
end

return _M
