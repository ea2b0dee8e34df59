-- Which file of the store a path of the module proxy's protocol names. The plain cases of `goproxy/names.py`: what is
-- not accepted here goes to that code, so it may be too little and must never be too much.
local memory = require("memory")
local find, match = ngx.re.find, ngx.re.match
local byte, gmatch, gsub, sub = string.byte, string.gmatch, string.gsub, string.sub

local _M = {}

local LONGEST_PATH, LONGEST_ELEMENT = 1024, 200
local PLAIN = [[\A/[a-z0-9_.~!@+/-]+\z]]
local FILE = [[\A/(?:cached-only/)?(.+)/@v/(?:(list)|(.+)\.(info|mod|zip))\z]]
local FIRST = [[\A(?!-)[a-z0-9.-]*\.[a-z0-9.-]*\z]]
local ELEMENT = [[\A[A-Za-z0-9_-](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?\z]]
local RESERVED = [[\A(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:\..*)?\z]]
local NUMBER = "(?:0|[1-9][0-9]*)"
local WORD = "(?:" .. NUMBER .. "|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
local VERSION = [[\Av(]] .. NUMBER .. [[)\.]] .. NUMBER .. [[\.]] .. NUMBER .. "(?:-" .. WORD .. [[(?:\.]] .. WORD
    .. [[)*)?(\+incompatible)?\z]]

-- 1 MB a generation: the files of some ten large module graphs.
local parsed = memory.new(1024 * 1024)

local function upper(letter)
    return string.upper(letter)
end

-- Without its `!` escapes, nil where one is malformed.
local function unescaped(text)
    local plain = gsub(text, "!(%l)", upper)
    return not string.find(plain, "!", 1, true) and plain or nil
end

local function is_module(path)
    local first = true
    for element in gmatch(path .. "/", "([^/]*)/") do
        if #element > LONGEST_ELEMENT or not find(element, ELEMENT, "jo") or find(element, RESERVED, "ijo") then
            return false
        end
        if first and not find(element, FIRST, "jo") then
            return false
        end
        first = false
    end
    return true
end

-- Whether the major version is one that the path stands for (https://go.dev/ref/mod#major-version-suffixes).
local function fits(path, major, incompatible)
    -- Suffixes of gopkg.in and of what looks like `/v1.2` have rules of their own.
    if sub(path, 1, 9) == "gopkg.in/" or find(path, [[/v(?:[01]|[0-9]*\.[0-9.]*|0[0-9.]*)\z]], "jo") then
        return false
    end
    local suffix = match(path, [[/v([0-9]+)\z]], "jo")
    if suffix then
        return suffix[1] == major
    end
    return major == "0" or major == "1" or incompatible
end

local function parse(path)
    if byte(path, 1) ~= 47 or #path > LONGEST_PATH then
        return false
    end
    -- The go command sends an escape's mark as %21.
    local plain = gsub(path, "%%21", "!")
    if not find(plain, PLAIN, "jo") then
        return false
    end
    local parts = match(plain, FILE, "jo")
    local module = parts and unescaped(parts[1])
    if not module or not is_module(module) then
        return false
    end
    if parts[2] then
        return { module = module, kind = "list", name = parts[1] .. "/@v/list" }
    end
    local version = unescaped(parts[3])
    local numbers = version and #version <= LONGEST_ELEMENT and match(version, VERSION, "jo")
    if not numbers or not fits(module, numbers[1], numbers[2]) then
        return false
    end
    return { module = module, kind = parts[4], name = parts[1] .. "/@v/" .. parts[3] .. "." .. parts[4] }
end

-- {module, kind, name}: `name` is the file's below the store; false for what is not plain.
function _M.parse(path)
    local ask = parsed:get(path)
    if ask == nil then
        ask = parse(path)
        parsed:set(path, ask)
    end
    return ask
end

return _M
