import asyncio

import aioftp

import common


async def main():
    users = [
        aioftp.User(base_path=common.root),
        aioftp.User(common.account, common.password, base_path=common.root),
    ]
    server = aioftp.Server(users, idle_timeout=common.idle)
    await server.start("127.0.0.1", common.port)
    common.become_nobody()
    await server.serve_forever()


asyncio.run(main())
