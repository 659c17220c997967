# The guest of `bhyved selftest`: a boot ROM of one page that needs no disk and no firmware.
#
#   as --32 -o selfguest.o selfguest.s && ld -m elf_i386 -Ttext 0xf000 --oformat binary -o selfguest.bin selfguest.o
#
# bhyve maps a bootrom below 4 GiB and starts the CPU at its last 16 bytes, in real mode (contract 1.4).  On com1 the ROM prints
# "ready", echoes what is typed, and obeys these lines, which it tells apart by their third letter:
#
#   acpi        switch ACPI on: from here on the power button is one, and powers off
#   poweroff    ACPI S5         reboot      reset through port 0xcf9
#   halt        cli; hlt        panic       triple fault
#
# The ports are bhyve's (usr.sbin/bhyve/pm.c); a Q35 chipset, whose ACPI block has no place until it is given one, is known by its
# host bridge.

        .set    UART, 0x3f8
        .set    RESET, 0xcf9
        .set    SMI_CMD, 0xb2
        .set    CONFIG_ADDRESS, 0xcf8
        .set    CONFIG_DATA, 0xcfc
        .set    Q35, 0x29c08086
        .set    POWER_BUTTON, 0x100             # bit 8 of PM1_STS and PM1_EN
# in memory
        .set    pm, 0x500                       # word: port of PM1_STS; PM1_EN is 2, PM1_CNT 4 above
        .set    sleep, 0x502                    # word: SLP_EN and the type of S5
        .set    enable, 0x504                   # byte: ACPI_ENABLE for SMI_CMD
        .set    acpi_on, 0x505                  # byte
        .set    count, 0x506                    # byte: characters of this line
        .set    verb, 0x507                     # byte: the third of them

        .code16
        .globl  _start
_start:
begin:  cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movw    $0x7c00, %sp
        movb    %al, acpi_on
        movb    %al, count
        movb    %al, verb
        movw    $UART + 1, %dx                  # no interrupts: everything is polled
        outb    %al, %dx
        movb    $3, %al                         # 8 bits, no parity
        movw    $UART + 3, %dx
        outb    %al, %dx

        movw    $0x400, pm
        movw    $0x3400, sleep                  # type 5
        movb    $0xa0, enable
        movl    $0x80000000, %eax               # host bridge, vendor and device
        call    config
        inl     %dx, %eax
        cmpl    $Q35, %eax
        jne     1f
        movw    $0x600, pm
        movw    $0x2000, sleep                  # type 0
        movb    $2, enable
        movl    $0x8000f840, %eax               # LPC bridge, PMBASE
        call    config
        movl    $0x601, %eax
        outl    %eax, %dx
        movl    $0x8000f844, %eax               # ACPI_CNTL: decode it
        call    config
        movb    $0x80, %al
        outb    %al, %dx
1:      movw    $ready, %si
2:      lodsb   %cs:(%si), %al
        testb   %al, %al
        jz      idle
        call    print
        jmp     2b

idle:   cmpb    $0, acpi_on
        je      1f
        movw    pm, %dx
        inw     %dx, %ax
        testw   $POWER_BUTTON, %ax
        jnz     poweroff
1:      movw    $UART + 5, %dx
        inb     %dx, %al
        testb   $1, %al
        jz      idle
        movw    $UART, %dx
        inb     %dx, %al
        cmpb    $'\n', %al
        je      obey
        cmpb    $'\r', %al
        je      obey
        call    print
        incb    count
        cmpb    $3, count
        jne     idle
        movb    %al, verb
        jmp     idle

obey:   movb    verb, %bl
        movb    $0, verb
        movb    $0, count
        cmpb    $'w', %bl
        je      poweroff
        cmpb    $'b', %bl
        je      reboot
        cmpb    $'l', %bl
        je      halt
        cmpb    $'n', %bl
        je      panic
        cmpb    $'p', %bl
        jne     1f
        movw    pm, %dx
        addw    $2, %dx
        movw    $POWER_BUTTON, %ax
        outw    %ax, %dx
        movb    enable, %al
        outb    %al, $SMI_CMD
        movb    $1, acpi_on
1:      movb    $'\r', %al                      # the end of the line says that it has been obeyed
        call    print
        movb    $'\n', %al
        call    print
        jmp     idle

poweroff:
        movw    pm, %dx
        addw    $4, %dx
        movw    sleep, %ax
        outw    %ax, %dx
        jmp     halt

reboot: movw    $RESET, %dx
        movb    $6, %al
        outb    %al, %dx
halt:   cli
        hlt
        jmp     halt

panic:  lidt    %cs:nothing
        int3

# Port of a PCI configuration register -> DX.
config: movw    $CONFIG_ADDRESS, %dx
        outl    %eax, %dx
        movw    $CONFIG_DATA, %dx
        ret

# AL to com1.
print:  pushw   %ax
        movw    $UART + 5, %dx
1:      inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        popw    %ax
        movw    $UART, %dx
        outb    %al, %dx
        ret

ready:  .asciz  "ready\r\n"
nothing: .word  0, 0, 0

        .org    0xff0
        jmp     begin
        .org    0x1000
