import asyncio
import ssl

import aioftp

import common


async def main():
    users = [
        aioftp.User(base_path=common.root),
        aioftp.User(common.account, common.password, base_path=common.root),
    ]
    context = None
    if common.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(common.certificate, common.key)
        if common.newer:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
    server = aioftp.Server(users, idle_timeout=common.idle, ssl=context)
    await server.start("127.0.0.1", common.port)
    common.become_nobody()
    await server.serve_forever()


asyncio.run(main())
