-- Who may have which module, as the module proxy's role wrote it down for us (`goproxy/clearance.py`), and its file of
-- tokens. Only what is certain is allowed here: whatever is absent, unreadable, strange or refused is Python's to
-- decide, which finds the words. Both files are looked at twice a second, so what is revoked ends without Python.
local cjson = require("cjson.safe")
local files = require("files")
local hmac = require("hmac")
local memory = require("memory")
local patterns = require("module_patterns")
local settings = require("settings")
local find, match = ngx.re.find, string.match

local _M = {}

local LOOK_S = 0.5
local FORMAT = 1
local MOST_BYTES = 32 * 1024 * 1024
local LONGEST_CREDENTIAL = 1024

local EVERYBODY = { name = "everybody", all = true }

local looked, policy, seen_policy = -1, nil, nil
local subjects, seen_tokens = {}, nil
-- Subjects by what was sent: a hash, or a header taken apart, is paid once.
local credentials

local function forget()
    credentials = memory.new(512 * 1024)
end

local function is_policy(found)
    return type(found) == "table" and found.format == FORMAT and found.store == settings.modules_store
        and type(found.private) == "table" and type(found.rules) == "table" and type(found.list_s) == "number"
        and (found.tokens == cjson.null or type(found.tokens) == "string")
        and (found.filter == cjson.null or type(found.filter) == "table" and type(found.filter.file) == "string")
end

local function read_policy()
    local text = files.text(settings.modules_policy, MOST_BYTES)
    local found = text and cjson.decode(text)
    if not is_policy(found) then
        return nil
    end
    for _, rule in ipairs(found.rules) do
        assert(type(rule.pattern) == "string")
        rule.patterns = patterns.compile({ rule.pattern })
    end
    found.private = patterns.compile(found.private)
    found.tokens = found.tokens ~= cjson.null and found.tokens
    found.filter = found.filter ~= cjson.null and found.filter
    return found
end

-- A last line without its end is still being written.
local function read_tokens(path)
    local found = {}
    local text = files.text(path, MOST_BYTES) or ""
    for line in string.gmatch(text, "([^\r\n]*)\r?\n") do
        local name, hash, private = match(line .. " ", "^([^%s#]%S*)%s+(%x+)%s+(%S*)%s*$")
        if name and #hash == 64 then
            local list = {}
            for pattern in string.gmatch(private, "[^,]+") do
                list[#list + 1] = pattern
            end
            found[hash] = { name = name, private = list }
        end
    end
    return found
end

local function look()
    local stamp = files.stamp(settings.modules_policy)
    if stamp ~= seen_policy then
        -- What cannot be read ends what was allowed before, also when reading it fails.
        policy, seen_policy, seen_tokens = nil, stamp, nil
        policy = stamp and read_policy()
        forget()
    end
    if not policy then
        return
    end
    policy.current = not policy.filter or files.stamp(policy.filter.file) == policy.filter.stamp
    if policy.tokens then
        stamp = files.stamp(policy.tokens)
        if stamp ~= seen_tokens then
            subjects, seen_tokens = read_tokens(policy.tokens), stamp
            forget()
        end
    end
end

-- What is in force, nil when only Python knows.
function _M.current(now)
    if now - looked > LOOK_S or now < looked then
        looked = now
        look()
    end
    return policy and policy.current and policy or nil
end

local function password(authorization)
    local scheme, value = match(authorization, "^(%a+) +(%S+)$")
    scheme = scheme and string.lower(scheme)
    if scheme == "bearer" then
        return value
    end
    local plain = scheme == "basic" and find(value, [[\A[A-Za-z0-9+/]+={0,2}\z]], "jo") and ngx.decode_base64(value)
    return plain and match(plain, "^[^:]*:(.+)$")
end

local function identified(credential, is_header)
    local token = is_header and password(credential) or not is_header and credential
    return token and subjects[hmac.sha256_hex(token)] or false
end

-- Who sends this token or, with `is_header`, this Authorization; false when Python should say.
function _M.subject(now_policy, credential, is_header)
    if not now_policy.tokens then
        return EVERYBODY
    end
    if not credential or #credential > LONGEST_CREDENTIAL then
        return false
    end
    local found = credentials:get(credential)
    if found == nil then
        found = identified(credential, is_header)
        -- What is not known is not kept: strangers would push out those who are.
        if found then
            credentials:set(credential, found)
        end
    end
    return found
end

-- The first rule that covers the module decides; one about some versions is Python's to apply.
local function included(rules, module)
    for i = 1, #rules do
        local rule = rules[i]
        if rule.pattern == "" or patterns.cover(rule.patterns, module) ~= false then
            return rule.mark == "+" and not rule.versions and (rule.pattern == "" or not rule.patterns[1].unknown)
        end
    end
    return true
end

local function owns(subject, module)
    local owned = subject.owned
    if not owned then
        owned = memory.new(64 * 1024)
        subject.owned, subject.patterns = owned, patterns.compile(subject.private)
    end
    local found = owned:get(module)
    if found == nil then
        found = patterns.cover(subject.patterns, module) == true
        owned:set(module, found)
    end
    return found
end

-- Whether the subject certainly may have the module of `ask`, which remembers what does not depend on the subject.
function _M.admits(now_policy, subject, ask)
    if ask.policy ~= now_policy then
        ask.policy = now_policy
        ask.included = included(now_policy.rules, ask.module)
        ask.private = patterns.cover(now_policy.private, ask.module)
    end
    if not ask.included or ask.private == nil then
        return false
    end
    return not ask.private or subject.all or owns(subject, ask.module)
end

return _M
