-- The text of a bucket that holds one plain route, as most do; compile.py writes it. Its lines are cut out in less time
-- than it takes to find what was kept of them, so no worker keeps any:
--     host (or unix:path), port, owner (* is everybody, nothing whoever is signed in), id, path, workspace
local ffi = require("ffi")
local raw = require("raw")
local find, string_of = raw.find, ffi.string

ffi.cdef([[
typedef struct { const unsigned char *at; int length; } mooring_line;
typedef struct { mooring_line host, port, owner, id, path, workspace; } mooring_single;
]])

local NEWLINE, ANYBODY = 10, 42

-- The lines that were cut out last, and the text that they are in where it is a string: see `session`.
local lines = ffi.new("mooring_single")
local _M = { lines = lines, held = "" }

-- Cuts a line off, and gives where the next one begins.
local function cut(line, from, till)
    local after = find(from, till, NEWLINE)
    line.at, line.length = from, after - from
    return after + 1
end

function _M.read(text, length)
    local till = text + length
    local from = cut(lines.host, text, till)
    from = cut(lines.port, from, till)
    from = cut(lines.owner, from, till)
    from = cut(lines.id, from, till)
    from = cut(lines.path, from, till)
    lines.workspace.at, lines.workspace.length = from, till - from
end

function _M.is_public()
    return lines.owner.length == 1 and lines.owner.at[0] == ANYBODY
end

function _M.text(line)
    return string_of(line.at, line.length)
end

-- Where it leads: host and port, or nothing and a unix socket.
function _M.address(route)
    local host = string_of(lines.host.at, lines.host.length)
    if lines.port.length == 0 then
        route.unix, route.host, route.port = host, nil, nil
    else
        route.unix, route.host, route.port = nil, host, raw.number(lines.port.at, lines.port.length)
    end
end

-- The route, which is its own only backend.
function _M.decode(text)
    local route = { single = true }
    _M.held = text
    _M.read(raw.of(text), #text)
    _M.address(route)
    if _M.is_public() then
        route.access = "public"
    elseif lines.owner.length > 0 then
        route.access, route.owner = "owner", _M.text(lines.owner)
    end
    route.id, route.path = _M.text(lines.id), _M.text(lines.path)
    route.workspace = lines.workspace.length > 0 and _M.text(lines.workspace) or nil
    return route
end

return _M
