-- The backend's half of a WebSocket's opening (RFC 6455, 4), and the relay of an answer that is not an upgrade.
local dial = require("dial")
local filters = require("filters")
local forwarded = require("forwarded")
local lower = string.lower

local _M = {}

local HEAD_LIMIT = 65536
local PIECE = 16384
local LONGEST_SIZE = 256

local function connect(state)
    local route = state.route
    local connect_ms, read_ms = (route.connect_s or 5) * 1000, (route.read_s or 300) * 1000
    local timeouts = { connect_ms = connect_ms, send_ms = 60000, read_ms = read_ms }
    return dial.connect(state.backend, timeouts, state.host_of_peer, state.peer_port)
end

local function head(state)
    local lines = { "GET " .. filters.target(state) .. " HTTP/1.1", "Host: " .. state.authority, "Connection: Upgrade",
        "Upgrade: websocket" }
    forwarded.add(state, lines)
    return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local function parse(text)
    local status = tonumber(string.match(text, "^HTTP/1%.[01] (%d%d%d)"))
    local headers = {}
    for name, value in string.gmatch(text, "\r\n([^:%s]+):[ \t]*([^\r\n]*)") do
        headers[#headers + 1] = { name, value }
    end
    return status and { status = status, headers = headers }
end

-- The connected socket and {status, headers} of the backend's answer; or nil, nil and whether another may be asked.
function _M.ask(state)
    local socket = connect(state)
    if not socket then
        return nil, nil, true
    end
    local text, err
    if socket:send(head(state)) then
        text, err = socket:receiveuntil("\r\n\r\n")(HEAD_LIMIT)
    end
    local answer = text and #text < HEAD_LIMIT and parse(text)
    if not answer then
        socket:close()
        -- One that took too long may still be at work; one that says something else would not be the last.
        return nil, nil, not text and err ~= "timeout"
    end
    return socket, answer
end

local OURS = { ["mooring"] = true, ["__host-mooring"] = true }

local function allowed(name, value)
    local cookie = lower(name) == "set-cookie" and string.match(value, "^[%s=]*([^=;%s]+)")
    return not (cookie and OURS[lower(cookie)])
end

-- The head of the 101 answer for the client.
function _M.switching(answer)
    local lines = { "HTTP/1.1 101 Switching Protocols" }
    for _, header in ipairs(answer.headers) do
        if allowed(header[1], header[2]) then
            lines[#lines + 1] = header[1] .. ": " .. header[2]
        end
    end
    return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- Waits until the client has taken it: what a backend sends without end would else be the worker's memory.
local function pass_on(piece)
    return piece and ngx.print(piece) and ngx.flush(true)
end

local function each_piece(socket, length)
    while length > 0 do
        local piece = socket:receive(math.min(length, PIECE))
        if not pass_on(piece) then
            return false
        end
        length = length - #piece
    end
    return true
end

-- A line without end would be kept until there is one.
local function size_of_chunk(socket)
    local line = socket:receiveuntil("\r\n")(LONGEST_SIZE)
    local digits = line and #line < LONGEST_SIZE and string.match(line, "^%s*(%x+)")
    return digits and tonumber(digits, 16)
end

local function each_chunk(socket)
    while true do
        local size = size_of_chunk(socket)
        if not size or size == 0 or not each_piece(socket, size) or not socket:receive(#"\r\n") then
            return
        end
    end
end

local function body(socket, headers)
    if headers["transfer-encoding"] then
        return each_chunk(socket)
    end
    if headers["content-length"] then
        -- Digits alone: of half a byte nothing is ever left to read, and the worker would never stop reading.
        return each_piece(socket, tonumber(string.match(headers["content-length"], "^%d+$")) or 0)
    end
    while pass_on(socket:receiveany(PIECE)) do
    end
end

-- Passes on an answer that is no upgrade: nothing the backend says can make the gateway tunnel blindly.
function _M.relay(socket, answer)
    ngx.status = answer.status
    local headers = {}
    for _, header in ipairs(answer.headers) do
        local name = lower(header[1])
        headers[name] = header[2]
        if allowed(header[1], header[2]) and not forwarded.DROPPED[name] then
            local before = ngx.header[header[1]]
            if name == "set-cookie" and before then
                local values = type(before) == "table" and before or { before }
                values[#values + 1] = header[2]
                ngx.header[header[1]] = values
            else
                ngx.header[header[1]] = header[2]
            end
        end
    end
    if answer.status ~= 204 and answer.status ~= 304 then
        body(socket, headers)
    else
        ngx.send_headers()
    end
    socket:close()
    return ngx.exit(ngx.HTTP_OK)
end

return _M
