-- The text of a bucket that holds one plain route, as most do; compile.py writes it. Its lines are cut out in less time
-- than it takes to find what was kept of them, so no worker keeps any:
--     host (or unix:path), port, owner (* is everybody, nothing whoever is signed in), id, path, workspace
local new_table = require("table.new")
local find, sub = string.find, string.sub

local _M = {}

local FIELDS = 8
local NEWLINE = 10

local function line(text, from)
    local after = find(text, "\n", from, true)
    return sub(text, from, after - 1), after + 1
end

-- The route, which is its own only backend, but for its path and its workspace; and where these begin.
function _M.head(text)
    local route, from = new_table(0, FIELDS), 1
    local host, port, owner
    route.single = true
    host, from = line(text, from)
    port, from = line(text, from)
    if port == "" then
        route.unix = host
    else
        route.host, route.port = host, tonumber(port)
    end
    owner, from = line(text, from)
    if owner == "*" then
        route.access = "public"
    elseif owner ~= "" then
        route.access, route.owner = "owner", owner
    end
    route.id, from = line(text, from)
    return route, from
end

-- Whether the route is for all paths, by the place that `head` gave.
function _M.is_for_all(text, from)
    return string.byte(text, from) == NEWLINE
end

function _M.decode(text)
    local route, from = _M.head(text)
    route.path, from = line(text, from)
    local workspace = sub(text, from)
    route.workspace = workspace ~= "" and workspace or nil
    return route
end

return _M
