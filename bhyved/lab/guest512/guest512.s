# A guest that fits into a boot sector: boots in a tenth of a second, talks on com1, obeys the power button.
#
#   as --32 -o guest512.o guest512.s && ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o guest512.bin guest512.o
#
# On com1 it prints "boot N clean" or "boot N dirty" and a prompt.  N counts its boots; "dirty" means that the last run
# did not end by a shutdown of its own.  Both are kept in sector 1 of the disk, through the BIOS, so that any disk
# the BIOS knows will do (virtio-blk, AHCI, NVMe under SeaBIOS).
#
# The power button is a clean shutdown.  Keys: p power off, r reset, h halt (all three clean), t triple fault,
# s spin with interrupts off, i ignore the power button from now on.  Every key is echoed before it is obeyed, all
# others are only echoed; Return gives a new prompt.
#
# The ports are those of QEMU's q35: SeaBIOS puts the ACPI PM block at 0x600, and 2 is its ACPI_ENABLE command.

        .set    UART, 0x3f8
        .set    PM1_STS, 0x600
        .set    PM1_EN, 0x602
        .set    PM1_CNT, 0x604
        .set    SMI_CMD, 0xb2
        .set    POWER_BUTTON, 0x100             # bit 8 of PM1_STS and PM1_EN
        .set    SCI_EN, 1                       # bit 0 of PM1_CNT
        .set    SLEEP_S5, 0x2000                # SLP_EN, SLP_TYP 0 is S5 on q35
        .set    IRQ4_VECTOR, 4 * 0x0c
        .set    sector, 0x8000                  # sector 1 in memory: word 0 counts boots,
        .set    dirty, sector + 2               # byte 2 is 1 while the guest runs

        .code16
        .globl  _start
_start: cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        ljmp    $0, $1f                         # a BIOS may have entered at 07c0:0000
1:      cld
        movb    %dl, drive

# The serial port interrupts for each byte, so that a key is seen at once and not at the next timer tick (55 ms).
        movw    $irq4, IRQ4_VECTOR
        movw    %ax, IRQ4_VECTOR + 2
        movw    $uart_setup, %si
        movw    $UART + 1, %dx
2:      lodsb                                   # IER, FCR, LCR, MCR in a row
        outb    %al, %dx
        incw    %dx
        cmpw    $UART + 5, %dx
        jne     2b
        inb     $0x21, %al
        andb    $0xef, %al                      # unmask IRQ 4; IRQ 9 (ACPI) stays masked, the button is polled
        outb    %al, $0x21

        movb    $0x42, %ah                      # extended read
        call    disk
        incw    sector
        movw    $boot, %si
        call    print
        movw    sector, %ax
        call    decimal
        movw    $clean, %si
        cmpb    $0, dirty
        je      3f
        movw    $unclean, %si
3:      call    print
        movb    $1, dirty
        movb    $0x43, %ah                      # extended write
        call    disk

        movb    $2, %al                         # ACPI on: from here the button is a button
        outb    %al, $SMI_CMD
        movw    $PM1_EN, %dx
        movw    $POWER_BUTTON, %ax
        outw    %ax, %dx
        movw    $prompt, %si                    # "ready": printed last, when button and keys work
        call    print

main:   movw    $PM1_STS, %dx
        inw     %dx, %ax
        andw    $POWER_BUTTON, %ax
        jz      4f
        outw    %ax, %dx                        # acknowledge: write the bit back
        cmpb    $0, ignoring
        je      poweroff
4:      movw    $UART + 5, %dx
        inb     %dx, %al
        testb   $1, %al
        jnz     key
        sti                                     # takes effect after the hlt has begun: no wake-up is lost
        hlt                                     # until the timer (18 times a second) or the serial port
        cli
        jmp     main

key:    movw    $UART, %dx
        inb     %dx, %al
        call    put
        cmpb    $'p', %al
        je      poweroff
        cmpb    $'r', %al
        je      reset
        cmpb    $'h', %al
        je      halt
        cmpb    $'t', %al
        je      triple
        cmpb    $'s', %al
        je      .                               # spins with interrupts off: only force helps
        cmpb    $'\r', %al
        je      5f
        cmpb    $'i', %al
        jne     main
        movb    %al, ignoring
        jmp     main
5:      movw    $prompt + 1, %si                # the echoed CR came first
        call    print
        jmp     main

poweroff:
        call    shutdown
        movw    $PM1_CNT, %dx
        movw    $SLEEP_S5 | SCI_EN, %ax
        outw    %ax, %dx
halt:   call    shutdown
        cli
        hlt
reset:  call    shutdown
        movb    $0xfe, %al                      # the keyboard controller pulls the reset line
        outb    %al, $0x64
        jmp     .
triple: lidt    no_idt                          # an interrupt without a table, without a table to report that
        int3

shutdown:
        movb    $0, dirty
        movb    $0x43, %ah                      # falls into disk

disk:   movw    $packet, %si                    # ah: 42 read, 43 write sector 1
        movb    $0, %al
        movb    drive, %dl
        int     $0x13                           # a failure changes nothing we could tell: run on
        cli                                     # the BIOS may come back with interrupts on
        ret

decimal:
        xorw    %dx, %dx                        # ax in decimal, most significant digit first
        movw    $10, %bx
        divw    %bx
        pushw   %dx
        testw   %ax, %ax
        jz      6f
        call    decimal
6:      popw    %ax
        addb    $'0', %al                       # falls into put

put:    movw    $UART + 5, %dx                  # al to the serial port; keeps al
        movb    %al, %ah
7:      inb     %dx, %al
        testb   $0x20, %al
        jz      7b
        movb    %ah, %al
        movw    $UART, %dx
        outb    %al, %dx
        ret

print:  lodsb                                   # the string at si, up to its zero
        testb   %al, %al
        jz      8f
        call    put
        jmp     print
8:      ret

irq4:   pushw   %ax                             # only wakes the main loop, which reads the byte
        movb    $0x20, %al
        outb    %al, $0x20
        popw    %ax
        iretw

uart_setup:
        .byte   1, 7, 3, 0x0b                   # interrupt on input; empty FIFOs on; 8N1; DTR, RTS, OUT2
packet: .byte   16, 0                           # for int 13h: size of this packet,
        .word   1, sector, 0                    # one sector, to 0000:sector,
        .quad   1                               # from LBA 1
no_idt: .word   0, 0, 0
drive:  .byte   0
ignoring:
        .byte   0
boot:   .asciz  "boot "
clean:  .asciz  " clean"
unclean:
        .asciz  " dirty"
prompt: .asciz  "\r\n> "

        .org    510
        .word   0xaa55                          # what makes it a boot sector
