-- Which frames of a WebSocket a person caused.
--
-- VS Code (a socket with `reconnectionToken` in its query) sends about 115 frames a minute from a tab that nobody
-- touches: keep-alives, acknowledgements, telemetry, stat and writeFile of its own state. The names of its remote calls
-- stand in clear in the payload (length, `$name`, JSON), several calls in one frame. Watched with code-server 4.139 in
-- Chromium, the calls below come when a person acts and from nothing else; what a terminal prints
-- (`$shellExecutionData`), a file that changes on disk (`$onFileEvent`) and a window that falls asleep
-- (`$onDidChangeWindowActive[false]`) are not among them. A false "yes" costs an idle period, a false "no" a person's
-- work, so words that only a person's text could hold may count as well.
local find = string.find

local _M = {}

local WORDS = {
    "$acceptTerminalInteraction",
    "\14remoteterminal\1\6$input",
    "\14remoteterminal\1\14$createProcess",
    '"source":"keyboard"',
    '"source":"mouse"',
    '"detailedSource":"keyboard"',
    '"source":"cursor"',
    '"isUndoing":true',
    '"isRedoing":true',
    "$acceptModelSaved",
    '"newActiveEditor":"',
}

-- The argument comes behind a length of four bytes.
local ACTIVE = "$onDidChangeWindowActive"

-- Of searches each says who asked: a person ("openFileHandler", "searchView"), or an extension ("startFileSearch",
-- "startTextSearch"), as some do when a tab opens and others whenever they like.
local REASON = '"_reason":"'

local function searches(payload)
    local _, last = find(payload, REASON, 1, true)
    while last do
        if string.sub(payload, last + 1, last + 5) ~= "start" then
            return true
        end
        _, last = find(payload, REASON, last + 1, true)
    end
    return false
end

function _M.vscode(payload)
    for i = 1, #WORDS do
        if find(payload, WORDS[i], 1, true) then
            return true
        end
    end
    if searches(payload) then
        return true
    end
    local _, last = find(payload, ACTIVE, 1, true)
    return last ~= nil and string.sub(payload, last + 5, last + 10) == "[true]"
end

-- Any other socket: a message that says the same as one of the last few, digits apart, is a heartbeat; so is whatever
-- a page says by itself in the first seconds of a socket (its opening was counted as a navigation).
local REMEMBERED = 16
local QUIET_S = 5
local SHAPE_BYTES = 256

function _M.other()
    local shapes, order, next_slot = {}, {}, 1
    local opened = ngx.now()
    return function(payload)
        local shape = string.gsub(string.sub(payload, 1, SHAPE_BYTES), "%d+", "0")
        if shapes[shape] then
            return false
        end
        local oldest = order[next_slot]
        if oldest then
            shapes[oldest] = nil
        end
        order[next_slot], shapes[shape] = shape, true
        next_slot = next_slot % REMEMBERED + 1
        return ngx.now() - opened > QUIET_S
    end
end

-- The rule for a socket, a function of a payload.
function _M.rule(query)
    if find(query, "reconnectionToken=", 1, true) then
        return _M.vscode
    end
    return _M.other()
end

return _M
