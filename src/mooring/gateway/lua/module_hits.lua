-- Counts what was served without the module proxy's role and tells it once a second, by datagrams to a socket of its
-- own: no request can lead there. While the role is away the counts wait, in bounded memory.
local cjson = require("cjson.safe")
local datagram = require("datagram")
local settings = require("settings")

local _M = {}

local FLUSH_S = 1
-- Most pairs of subject and file that wait; what comes then is counted by kind alone.
local MOST = 10000
-- A datagram fits into a socket's usual buffer of 208 KiB several times.
local MOST_BYTES = 16384

local pending, others, waiting = {}, {}, 0

function _M.count(subject, ask)
    local by_name = pending[subject]
    if not by_name then
        by_name = {}
        pending[subject] = by_name
    end
    local before = by_name[ask.name]
    if before then
        by_name[ask.name] = before + 1
    elseif waiting < MOST then
        by_name[ask.name], waiting = 1, waiting + 1
    else
        others[ask.kind] = (others[ask.kind] or 0) + 1
    end
end

-- What waits, in parts that fit into a datagram each.
local function parts()
    local found, entries, bytes = {}, {}, 0
    local function close()
        if #entries > 0 then
            found[#found + 1] = entries
            entries, bytes = {}, 0
        end
    end
    for subject, by_name in pairs(pending) do
        for name, times in pairs(by_name) do
            entries[#entries + 1] = { subject, name, times }
            bytes = bytes + #subject + #name + 16
            if bytes > MOST_BYTES then
                close()
            end
        end
    end
    for kind, times in pairs(others) do
        entries[#entries + 1] = { cjson.null, kind, times }
    end
    close()
    return found
end

local function forget(entries)
    for _, entry in ipairs(entries) do
        local subject, name = entry[1], entry[2]
        if subject == cjson.null then
            others[name] = nil
        else
            local by_name = pending[subject]
            by_name[name], waiting = nil, waiting - 1
            if not next(by_name) then
                pending[subject] = nil
            end
        end
    end
end

-- Nothing is counted between what is sent and what is forgotten: sending never waits.
function _M.flush()
    if waiting == 0 and not next(others) then
        return
    end
    local found = parts()
    for i = 1, datagram.send(settings.modules_hits, found, cjson.encode) do
        forget(found[i])
    end
end

function _M.start()
    if settings.modules_hits ~= "" then
        assert(ngx.timer.every(FLUSH_S, _M.flush))
    end
end

return _M
