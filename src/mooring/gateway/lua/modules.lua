-- The way of a request for a Go module: what the store has and the sender may have, nginx sends from there; the rest
-- goes to the module proxy's role. In doubt always to the role: it answers every request rightly, only slower.
local answers = require("answers")
local files = require("files")
local guard = require("guard")
local hits = require("module_hits")
local names = require("module_names")
local policies = require("module_policy")
local settings = require("settings")
local byte, find, match, sub = string.byte, string.find, string.match, string.sub

local _M = {}

local PREFIX = "/goproxy"
local PREFIX_BYTES = #PREFIX
-- The listener that has nothing but modules: whatever name it is called by.
local OWN = "modules"

-- The token in the path's first segment, and the rest of the path.
local function split(target)
    local path = sub(target, PREFIX_BYTES + 1)
    if byte(path, 2) ~= 116 or byte(path, 3) ~= 45 then
        return nil, path
    end
    local slash = find(path, "/", 4, true)
    if not slash or slash == 4 then
        return false
    end
    local token = sub(path, 4, slash - 1)
    -- No token has a dot, and every host that a module's path begins with has one.
    if find(token, ".", 1, true) then
        return nil, path
    end
    return token, sub(path, slash)
end

-- Whether the request asks for something else than the file as it is.
local function conditional(var)
    return var.http_if_match or var.http_if_none_match or var.http_if_unmodified_since or var.http_if_range
end

-- Whether a Range is none, or one that cannot be read in two ways and that the file can satisfy.
local function satisfiable(range, ask, size)
    if not range then
        return true
    end
    local from, to = match(range, "^bytes=(%d+)%-(%d*)$")
    if not from or ask.kind ~= "zip" or #from > 15 or #to > 15 then
        return false
    end
    from, to = tonumber(from), tonumber(to)
    return from < size and (not to or to >= from)
end

local function current(policy, ask, size, changed, now)
    if ask.kind ~= "list" then
        -- No file of the protocol is empty: this one lost its bytes in a crash of the machine.
        return size > 0
    end
    return not policy.filter and now - changed < policy.list_s and changed <= now
end

-- The file that answers the request, nil where that is not certain.
local function hit(var, target)
    local method, now = ngx.req.get_method(), ngx.now()
    local policy = (method == "GET" or method == "HEAD") and policies.current(now)
    if not policy then
        return nil
    end
    local token, path = split(target)
    if token == false then
        return nil
    end
    local subject = policies.subject(policy, token or var.http_authorization, not token)
    local ask = subject and names.parse(path)
    if not ask or not policies.admits(policy, subject, ask) then
        return nil
    end
    local size, changed = files.read(settings.modules_store .. "/" .. ask.name, now)
    if not size or not current(policy, ask, size, changed, now) or conditional(var) then
        return nil
    end
    if method == "HEAD" then
        -- Ranges are GET's alone (RFC 9110, 14.2); nginx would tell the length of one.
        ngx.req.clear_header("Range")
    elseif not satisfiable(var.http_range, ask, size) then
        return nil
    end
    hits.count(subject.name, ask)
    return "/" .. ask.name
end

function _M.handle(listener)
    local var = ngx.var
    local target, host = var.request_uri, var.host
    -- nginx has matched what it made of the path; what is forwarded are the raw bytes.
    local ours = sub(target, 1, PREFIX_BYTES + 1) == PREFIX .. "/"
    if listener ~= OWN and (not ours or host ~= settings.console) then
        return ngx.exec("@routed")
    end
    if not ours or not guard.authority(var.http_host, host) then
        return answers.bad_request()
    end
    -- A mistake in here must not refuse what the role would have answered.
    local ok, uri = pcall(hit, var, target)
    if not ok or not uri then
        return ngx.exec("@modules")
    end
    ngx.req.set_uri(uri)
end

-- Nobody is there who could answer: text, which the go command shows.
function _M.unavailable()
    ngx.status = 503
    ngx.header["Content-Type"] = "text/plain; charset=utf-8"
    ngx.print("the module proxy does not answer; what it keeps is served all the same\n")
    return ngx.exit(ngx.HTTP_OK)
end

return _M
